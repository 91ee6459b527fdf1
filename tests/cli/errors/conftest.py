"""Bad input ends in one line on stderr that names the value, what is accepted and what to do; exit code 1 or 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TRAIN = ("run", "small.bundle", "--data", "data.npz", "--epochs", 4)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `small.bundle` and `data.npz` in it."""
    shutil.copytree(small.bundle, tmp_path / "small.bundle")
    shutil.copy(small.data, tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(sonew: Callable[..., Any]) -> Callable[..., str]:
    """Runs a command line that must end with this exit code and one line, which it gives without the newline."""

    def run(code: int, *args: object) -> str:
        result = sonew(*args)
        # What was done before it failed, such as epochs, has lines of its own.
        lines = [line for line in result.err.splitlines() if line.startswith("sonew")]
        assert (result.code, result.out, len(lines)) == (code, "", 1), result.err
        assert result.err.endswith(lines[0] + "\n")
        return str(lines[0])

    return run


@pytest.fixture
def train_line() -> tuple[object, ...]:
    """The command line of the run that `trained` has done."""
    return TRAIN


@pytest.fixture
def trained(sonew: Callable[..., Any]) -> Path:
    """The last checkpoint of a run in `sonew-run`."""
    assert sonew(*TRAIN).code == 0
    return Path("sonew-run/step-00000036.safetensors")


@pytest.fixture
def change_manifest() -> Callable[[Callable[[dict[str, Any]], object]], None]:
    """Rewrites the manifest of `small.bundle` as its argument changes it."""

    def rewrite(change: Callable[[dict[str, Any]], object]) -> None:
        path = Path("small.bundle/manifest.json")
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return rewrite
