"""A user's folder in which to measure the small model."""

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def folder(small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The working directory, with the small model and its data."""
    shutil.copy(small.path / "small_model.py", tmp_path)
    shutil.copy(small.data, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
