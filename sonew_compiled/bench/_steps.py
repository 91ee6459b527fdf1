"""What the tables of speed, of models and of workers have in common: a model's bundle, and two steps in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sonew_compiled.bench._distance import core_round_trip_ns
from sonew_compiled.bench._pairs import measure_pairs
from sonew_compiled.bench._speed_settings import SpeedSettings
from sonew_compiled.bench._versus import JaxStep
from sonew_compiled.compile import compile_training
from sonew_compiled.jax_settings import start_platforms
from sonew_compiled.models import load_model, user_code
from sonew_compiled.presets import optimizer_settings


def compile_step(asked: SpeedSettings, optimizer: str, output: Path, **more: Any) -> float:
    """Compiles the model with an optimizer, without the check, which is no part of the compilation.

    Args:
      asked: the model and the batch size.
      optimizer: the optimizer's name.
      output: the bundle.
      more: further arguments of `compile_training`.

    Returns:
      The seconds that it took.
    """
    model = load_model(asked.model)
    start_platforms()
    started = time.perf_counter()
    with user_code(asked.model):
        compile_training(
            optimizer=optimizer_settings(optimizer),
            batch=model.batch(asked.batch_size),
            output=output,
            model=asked.model,
            check=False,
            **(model.functions(predict=None, metrics=None) | more),
        )
    return time.perf_counter() - started


def jax_step(model: str, optimizer: str, batch_size: int, precision: str) -> JaxStep:
    """The step of `jax.jit` of a model and an optimizer, by their names."""
    return JaxStep(load_model(model), optimizer_settings(optimizer), batch_size, precision)


def compare_steps(a: Callable[[], object], b: Callable[[], object], pairs: int, **more: int) -> dict[str, Any]:
    """Times both in turns, and notes the distance of the processors before and after."""
    before = core_round_trip_ns()
    described = measure_pairs(a, b, pairs, **more).described()
    return described | {"core_round_trip_ns": [before, core_round_trip_ns()]}
