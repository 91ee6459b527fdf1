"""The tasks of the table of models."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import jax

from sonew_compiled.bench._distance import core_round_trip_ns
from sonew_compiled.bench._elsewhere import Elsewhere
from sonew_compiled.bench._pairs import measure_pairs
from sonew_compiled.bench._speed_settings import SpeedSettings
from sonew_compiled.bench._update import load_step
from sonew_compiled.bench._versus import JaxStep
from sonew_compiled.compile import compile_training
from sonew_compiled.models import load_model, user_code
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import Program, open_bundle, open_device

_BUNDLE = "adam"


def compile_adam(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """The bundle of the model with Adam; gives the seconds that it took, without the check."""
    asked = SpeedSettings(**settings)
    model = load_model(asked.model)
    jax.devices()
    started = time.perf_counter()
    with user_code(asked.model):
        compile_training(
            model.loss,
            model.init,
            optimizer_settings("adam"),
            model.batch(asked.batch_size),
            output=Path(folder, _BUNDLE),
            model=asked.model,
            check=False,
        )
    return {"seconds": time.perf_counter() - started}


def measure_step(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """The step of the bundle over that of `jax.jit`, which runs in a process of its own."""
    asked = SpeedSettings(**settings)
    step = load_step(Program.load(open_bundle(Path(folder, _BUNDLE)), open_device()))
    with Elsewhere(functools.partial(_jax_step, asked.model, asked.batch_size)) as other:
        before = core_round_trip_ns()
        measured = measure_pairs(step, other, asked.pairs).described()
    return measured | {"core_round_trip_ns": [before, core_round_trip_ns()]}


def _jax_step(model: str, batch_size: int) -> JaxStep:
    return JaxStep(load_model(model), optimizer_settings("adam"), batch_size, "f32")
