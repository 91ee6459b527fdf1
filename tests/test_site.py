"""The documentation site builds without a warning and without the network, and is whole."""

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import generated
import pytest

ROOT = Path(__file__).parent.parent

# Connecting to anything is an error while the site is built.
BUILD = """
import socket, sys

def refuse(*_):
    raise SystemExit("the build asked for the network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli(["build", "--strict", "--quiet", "--site-dir", sys.argv[1]])
"""

# The attributes by which a page loads something without being asked.
LOADS = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}


class Page(HTMLParser):
    """The anchors of a page, where it leads, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif (tag, name) in LOADS and value:
                self.loads.append(value)
            elif (tag, name) == ("a", "href") and value:
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-c", BUILD, folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "WARNING" not in built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_links_lead_to_pages_and_anchors(pages: dict[Path, Page]) -> None:
    """MkDocs checks the links of Markdown; this checks those of the pages, docstrings and navigation among them."""
    dead = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = unquote(link).partition("#")
            found = (path.parent / target).resolve() if target else path
            if not found.exists() or (anchor and anchor not in pages[found].anchors | {"__top"}):
                dead.append(f"{path.name}: {link}")
    assert not dead


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    assert not [load for page in pages.values() for load in page.loads if re.match(r"([a-z]+:)?//", load)]
    assert not [
        path.name
        for path in site.rglob("*.css")
        if re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(
    ("module", "page"), [("sonew_compiled", "library.html"), ("sonew_compiled.runtime", "runtime.html")]
)
def test_the_reference_has_all_that_is_exported(site: Path, module: str, page: str) -> None:
    anchors = Page(site / "reference" / page).anchors
    package = importlib.import_module(module)
    names = getattr(package, "__all__", None) or re.findall(
        r"import (\w+) as \1$", Path(str(package.__file__)).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(names) > 5
    folder = Path(str(package.__file__)).parent
    paths = [f"{module}.{name}" + (f".{name}" if (folder / f"{name}.py").exists() else "") for name in names]
    assert not [path for path in paths if not path.endswith(".__version__") and path not in anchors]


def test_the_reference_has_every_command_and_option(site: Path) -> None:
    text = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    for command in ("sonew run", "sonew compile", "sonew bench", "sonew data pack"):
        assert f'id="{command.replace(" ", "-")}"' in text
    for option in ("--checkpoint-every INTEGER", "--resume RUN", "--band INTEGER"):
        assert f"{option}" in text


def test_each_generated_part_has_its_place_in_one_document(site: Path) -> None:
    marks = [
        mark
        for path in (ROOT / "docs").rglob("*.md")
        for mark in re.findall(r"<!-- generated: (.+) -->", path.read_text(encoding="utf-8"))
    ]
    assert sorted(marks) == sorted(generated.PARTS)
    assert not [path.name for path in site.rglob("*.html") if "generated: " in path.read_text(encoding="utf-8")]
