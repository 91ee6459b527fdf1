"""The tasks of the table of models."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from sonew_compiled.bench._elsewhere import Elsewhere
from sonew_compiled.bench._speed_settings import SpeedSettings
from sonew_compiled.bench._steps import compare_steps, compile_step, jax_step
from sonew_compiled.bench._update import load_step
from sonew_compiled.runtime import Program, open_bundle, open_device

_OPTIMIZER = "adam"


def compile_adam(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """The bundle of the model with Adam; gives the seconds that it took, without the check."""
    return {"seconds": compile_step(SpeedSettings(**settings), _OPTIMIZER, Path(folder, _OPTIMIZER))}


def measure_step(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """The step of the bundle over that of `jax.jit`, which runs in a process of its own."""
    asked = SpeedSettings(**settings)
    step = load_step(Program.load(open_bundle(Path(folder, _OPTIMIZER)), open_device()))
    with Elsewhere(functools.partial(jax_step, asked.model, _OPTIMIZER, asked.batch_size, "f32")) as other:
        return compare_steps(step, other, asked.pairs)
