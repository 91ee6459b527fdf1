"""The command line as a function, and a user's folder in which to call it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# A linear autoencoder of 36 pixels, as a user would write one; a step takes well under a millisecond.
SMALL_MODEL = """
import jax
import jax.numpy as jnp

from sonew_compiled import Model


def init(key):
    down, up = jax.random.split(key)
    return {"down": 0.3 * jax.random.normal(down, (36, 5)), "up": 0.3 * jax.random.normal(up, (5, 36))}


def predict(params, batch):
    return batch["image"] @ params["down"] @ params["up"]


def loss(params, batch):
    return jnp.mean(jnp.sum((predict(params, batch) - batch["image"]) ** 2, axis=-1))


def batch(size):
    return {"image": jax.ShapeDtypeStruct((size, 36), jnp.float32)}


model = Model(init=init, loss=loss, predict=predict, batch=batch)
"""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The end of a command line: exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON value on stdout."""
        return json.loads(self.out)


@dataclass(frozen=True, kw_only=True)
class Small:
    """A user's folder: `small_model.py`, `data.npz` with 9 batches in an epoch, and the model's `bundle`."""

    path: Path
    bundle: Path
    data: Path
    compiled: Result


def sonew_script() -> Path:
    """The command line, installed beside this Python."""
    return Path(sys.executable).parent / "sonew"


def sonew_process(*args: object, cwd: Path, env: Mapping[str, str] | None = None) -> Result:
    """Runs the command line in a process of its own."""
    process = subprocess.run(
        [sonew_script(), *map(str, args)], cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True
    )
    return Result(code=process.returncode, out=process.stdout, err=process.stderr)


@pytest.fixture(scope="session")
def sonew_apart() -> Callable[..., Result]:
    """Runs the command line in a process of its own."""
    return sonew_process


@pytest.fixture
def sonew(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command line in this process, through the console script's own function."""
    from sonew_compiled.cli import main

    def run(*args: object) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["sonew", *map(str, args)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(code=ended.value.code, out=captured.out, err=captured.err)

    return run


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small model, compiled for the CPU with batches of 20; not to be changed."""
    path = tmp_path_factory.mktemp("small")
    (path / "small_model.py").write_text(SMALL_MODEL)
    rng = np.random.default_rng(0)
    images = (rng.random((205, 3)) @ rng.random((3, 36)) * 80).astype(np.uint8).reshape(-1, 6, 6)
    np.savez(path / "data.npz", train_image=images[:180], test_image=images[180:])
    compiled = sonew_process(
        *("compile", "-o", "small.bundle", "--model", "small_model:model", "--batch-size", 20, "--json"), cwd=path
    )
    assert compiled.code == 0, compiled.err
    return Small(path=path, bundle=path / "small.bundle", data=path / "data.npz", compiled=compiled)
