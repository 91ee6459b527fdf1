"""Bad input ends with exit code 1 or 2 and one line on stderr: the value, what is accepted, and the remedy."""

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
    """The working directory is a new folder with `small.bundle` and `data.npz`."""
    shutil.copytree(small.bundle, tmp_path / "small.bundle")
    shutil.copy(small.data, tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(sonew: Callable[..., Any]) -> Callable[..., str]:
    """Runs a command line that must end with this exit code and one line; returns the line without its end."""

    def run(code: int, *args: object) -> str:
        result = sonew(*args)
        # Work before the failure, such as epochs, has lines of its own.
        lines = [line for line in result.err.splitlines() if line.startswith("sonew")]
        assert (result.code, result.out, len(lines)) == (code, "", 1), result.err
        assert result.err.endswith(lines[0] + "\n")
        return str(lines[0])

    return run


@pytest.fixture
def train_line() -> tuple[object, ...]:
    """The command line of the run that `trained` did."""
    return TRAIN


@pytest.fixture
def trained(sonew: Callable[..., Any]) -> Path:
    """The last checkpoint of a run in `sonew-run`."""
    assert sonew(*TRAIN).code == 0
    return Path("sonew-run/step-00000036.safetensors")


@pytest.fixture
def change_manifest() -> Callable[[Callable[[dict[str, Any]], object]], None]:
    """Changes the manifest of `small.bundle` by a function."""

    def rewrite(change: Callable[[dict[str, Any]], object]) -> None:
        path = Path("small.bundle/manifest.json")
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return rewrite
