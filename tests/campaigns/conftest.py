"""Campaigns: many random disasters, each from a printed seed. See README.md."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaigns.conduct import PATIENCE, check_end

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def trained(small: Any, sonew_apart: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `small.bundle`, `data.npz`, and a run of six epochs in `run`; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(small.bundle, folder / "small.bundle")
    shutil.copy(small.data, folder)
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
def ends_well(sonew: Run) -> Callable[..., int]:
    """Runs a command line, which must soon end with 0, 1 or 2 and at most one line of error; returns the exit code."""

    def run(seed: int, *line: object) -> int:
        started = time.perf_counter()
        result = sonew(*line)
        seconds = time.perf_counter() - started
        words = " ".join(map(str, line))
        print(f"seed {seed}: {words}: {result.code} in {seconds:.1f} s: {result.err[-200:].strip()}")
        check_end(result.code, result.err, f"seed {seed}: {words}")
        assert seconds < PATIENCE, (seed, line, seconds)
        return int(result.code)

    return run
