"""A user's folder in which to measure the small model."""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonew_compiled.bench._apart import RunError, one_line
from sonew_compiled.errors import SonewError


@pytest.fixture
def folder(small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The working directory, with the small model and its data."""
    shutil.copy(small.path / "small_model.py", tmp_path)
    shutil.copy(small.data, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def limits() -> dict[str, Any]:
    """What the machine can do, measured once by `task_here`."""
    return {}


@pytest.fixture
def task_here(limits: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """Does in this process, which has imported JAX, what `call_apart` does in a new one: JSON in, JSON out."""

    def call(task: str, **request: Any) -> dict[str, Any]:
        asked = json.dumps({"task": task, **request})
        if asked in limits:
            return dict(limits[asked])
        module, _, function = task.partition(":")
        try:
            done = getattr(importlib.import_module(module), function)(**json.loads(json.dumps(request)))
        except SonewError as error:
            raise RunError(one_line(error)) from None
        answer: dict[str, Any] = json.loads(json.dumps(done))
        if function == "measure_limits":
            limits[asked] = answer
        return dict(answer)

    return call
