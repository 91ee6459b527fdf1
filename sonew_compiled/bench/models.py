"""`sonew bench --preset models`: the compiled steps of several models against `jax.jit`'s, as one table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from sonew_compiled.bench._apart import call_apart
from sonew_compiled.bench._circumstances import Watch
from sonew_compiled.bench._speed_settings import SpeedSettings
from sonew_compiled.bench.goals import Goal, described

BATCHES: Mapping[str, int] = MappingProxyType(
    {"autoencoder": 1000, "classifier": 100, "resnet18": 32, "gpt-small": 16, "vit-small": 32}
)
"""The built-in models, and the examples in a step of each."""

_OTHER_BATCH = 100


def sizes_of(models: Sequence[str], batch_size: int | None) -> Mapping[str, int]:
    """The examples in a step of each model.

    Args:
      models: their names on the command line; none stands for the built-in ones.
      batch_size: the examples in a step of all; None for those of `BATCHES`, and 100 for a model that is not built in.
    """
    return {name: batch_size or BATCHES.get(name, _OTHER_BATCH) for name in models or BATCHES}


def goals_of(models: Mapping[str, int]) -> tuple[Goal, ...]:
    """The lines of a table of these models."""
    steps = [
        Goal(key=name, what=f"step of {name}, {size} examples, Adam, f32, IREE ÷ XLA", must=1.05, aim=0.9)
        for name, size in models.items()
    ]
    compiles = [
        Goal(key=f"{name}_compile_seconds", what=f"compile time of {name}", must=60.0, aim=20.0, unit=" s")
        for name in models
    ]
    return (*steps, *compiles)


def measure_models(
    settings: SpeedSettings,
    models: Mapping[str, int],
    *,
    host: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measures the whole table, with Adam in float32.

    Args:
      settings: gives the number of pairs; `models` has the models and the batch sizes.
      models: the examples in a step of each model, by its name.
      host: the name of this machine in the result; None to leave it out.
      say: is called with each line of progress.

    Returns:
      The result, see `goals.described`.

    Raises:
      RunError: a measurement failed.
    """
    watch = Watch(host)
    measurements: dict[str, Any] = {}
    for model, size in models.items():
        asked = asdict(replace(settings, model=model, batch_size=size))
        with tempfile.TemporaryDirectory(prefix="sonew-") as folder:
            say(f"compile {model}, and time its step against XLA's")
            compiled = call_apart("sonew_compiled.bench._models_tasks:compile_adam", settings=asked, folder=folder)
            measurements[f"{model}_compile_seconds"] = {"ratio": compiled["seconds"], "each": [compiled["seconds"]]}
            timed = call_apart("sonew_compiled.bench._models_tasks:measure_step", settings=asked, folder=folder)
            measurements[model] = {"examples": size, **timed}
    ratios = {key: value["ratio"] for key, value in measurements.items()}
    return described(goals_of(models), ratios, measurements, settings, watch)
