"""What the documents say to type works: their blocks are run, page by page.

Each tutorial is followed in an environment of its own, with the wheel and the extras that it says to install.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from plugins.clean import Environment, Session
from plugins.documents import PAGES, ROOT, Block, blocks_of, is_run, missing_output

TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))
FIRST = ROOT / "docs/tutorials/ahead-of-time.md"
"""The tutorial that makes the model, the bundle and the run with which the other pages begin."""


def blocks(page: Path) -> list[Block]:
    return blocks_of(page.read_text(encoding="utf-8"))


RUN = [page for page in PAGES if page != FIRST and any(is_run(block) for block in blocks(page))]


class Follower:
    """Follows a page to the letter, in a folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, environment: Environment | None = None) -> None:
        """Begins in a folder.

        Args:
          folder: becomes the working directory.
          monkeypatch: sets the variables of the programs.
          environment: where to follow the page; None for that of the tests, whose Python runs the page's programs.
        """
        self.folder = folder
        self.output = ""
        self._names: dict[str, Any] = {"__name__": "__page__"}
        self._environment = environment
        self._session: Session | None = None
        programs = environment.programs if environment else Path(sys.executable).parent
        monkeypatch.chdir(folder)
        if not environment:  # a page that names tools is read in a checkout
            (folder / "tools").symlink_to(ROOT / "tools")
        monkeypatch.setenv("PATH", os.pathsep.join([str(programs), os.environ["PATH"]]))
        monkeypatch.setenv("HOME", str(folder))
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, "digits", raising=False)

    def follow(self, page: Path) -> None:
        for block in blocks(page):
            if block.title:
                path = self.folder / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
            elif block.language == "text" and not block.not_run:
                assert not (missing := missing_output(block.text, self.output)), f"{missing} not in\n{self.output}"
            elif is_run(block):
                self.output = self._in_shell(block) if block.language == "sh" else self._in_python(block.text)
            elif self._environment:
                for extras in re.findall(r"pip install .*\[([a-z,]+)\]", block.text):
                    self._environment.install(*extras.split(","))
        if self._session:
            self._session.close()

    def _in_shell(self, block: Block) -> str:
        shown = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": {**os.environ, **block.variables}}
        ended = subprocess.run(["sh", "-ec", block.text], **shown, text=True, check=False, timeout=300)
        assert ended.returncode == 0, f"{block.text}\n{ended.stdout}"
        return ended.stdout

    def _in_python(self, text: str) -> str:
        if self._environment:
            self._session = self._session or Session(self._environment.programs / "python", self.folder)
            return self._session.run(text)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(text, self._names)
        return printed.getvalue()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The folder in which the first tutorial was followed."""
    folder = tmp_path_factory.mktemp("first")
    environment = Environment(tmp_path_factory.mktemp("environment"), wheel)
    with pytest.MonkeyPatch.context() as monkeypatch:
        Follower(folder, monkeypatch, environment).follow(FIRST)
    return folder


def test_the_first_tutorial_ends_with_a_trained_model(first: Path) -> None:
    assert (first / "digits.bundle/cpu.vmfb").stat().st_size > 10_000
    assert (first / "digits-run/metrics.jsonl").read_text().count('"epoch"') == 10
    assert (first / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_page_can_be_followed(
    first: Path, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Path
) -> None:
    folder = tmp_path / "here"
    shutil.copytree(first, folder)
    environment = Environment(tmp_path / "environment", wheel) if page in TUTORIALS else None
    Follower(folder, monkeypatch, environment).follow(page)


def test_every_way_to_use_it_has_a_tutorial_that_is_run() -> None:
    assert [page.stem for page in TUTORIALS] == ["ahead-of-time", "device", "machines", "optax"]
    for page in TUTORIALS:
        assert sum(map(is_run, blocks(page))) >= 3, page
