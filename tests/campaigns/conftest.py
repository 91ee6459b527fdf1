"""Campaigns: many random disasters, each from a printed seed. See README.md."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaigns.conduct import check_end, within_limits

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def trained(small: Any, sonew_apart: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small model, its bundle and data, and a run of six epochs in `run`; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(small.bundle, folder / "small.bundle")
    shutil.copy(small.data, folder)
    shutil.copy(small.path / "small_model.py", folder)
    ended = sonew_apart("run", "small.bundle", "--data", "data.npz", "--epochs", 6, "-o", "run", cwd=folder)
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder as the working directory, beside a folder that no command may touch."""
    shutil.copytree(trained, tmp_path / "place")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("years of work")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `$TMPDIR` of its own."""
    folder = tmp_path / "cache" / "temporary"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def restored(place: Path, trained: Path) -> Callable[[], None]:
    """Restores the folder."""

    def restore() -> None:
        assert [path.name for path in place.parent.iterdir() if path.name not in ("place", "precious", "cache")] == []
        assert (place.parent / "precious" / "thesis.tex").read_text() == "years of work"
        for path in place.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(trained, place, dirs_exist_ok=True)

    return restore


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Says what becomes of a seed, where a campaign is run by hand."""

    def write(line: str) -> None:
        if "SONEW_CAMPAIGN" in os.environ:
            # The file that this is written to is on no full disk.
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limits[1], limits[1]))
            with capsys.disabled():
                print(line, flush=True)
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return write


@pytest.fixture
def ends_well(sonew: Run, log: Callable[[str], None]) -> Callable[..., int]:
    """Runs a command line, which must end soon with 0, 1 or 2 and at most one line of error; gives the exit code."""

    def run(seed: int, *line: object) -> int:
        what = f"seed {seed}: {' '.join(map(str, line))}"
        with within_limits(what):
            result = sonew(*line)
        log(f"{what}: {result.code}: {result.err[-200:].strip()}")
        check_end(result.code, result.err, what)
        return int(result.code)

    return run
