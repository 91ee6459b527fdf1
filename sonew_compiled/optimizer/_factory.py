"""The function that makes an optimizer, from its settings."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jax
import optax

from sonew_compiled.errors import UsageError
from sonew_compiled.optimizer._runtime_number import RuntimeNumber
from sonew_compiled.presets import OptimizerSettings, record_of


def optimizer_factory(
    settings: OptimizerSettings, *, loss: Callable[[Any, Any], jax.Array] | None = None, batch: Any = None
) -> Callable[..., optax.GradientTransformation]:
    """A function from the learning rate, a float or a traced scalar, to the transformation.

    The function takes traced scalars by keyword, in place of the settings that a step can take at run time. If the
    optimizer compares such a setting while it is traced, the number in `settings` answers.

    Args:
      settings: the settings of the optimizer.
      loss: `loss(params, batch) -> scalar`, for an optimizer that looks into the model.
      batch: a tree of `jax.ShapeDtypeStruct`, likewise; its batch size may differ from that of the training.

    Raises:
      UsageError: the optimizer looks into the model, and `loss` or `batch` is missing.
    """
    record = record_of(settings.name)
    needed: dict[str, Any] = {}
    if record.needs_loss:
        if loss is None or (record.needs_layers and batch is None):
            raise UsageError(f"{record.name} looks into the model; give optimizer_factory the model's loss and batch")
        needed["loss"] = loss
    if record.needs_layers:
        needed["batch"] = batch
    module, _, function = record.factory.partition(":")
    factory = getattr(importlib.import_module(module), function)

    def make(learning_rate: Any, **traced: Any) -> optax.GradientTransformation:
        numbers = {key: RuntimeNumber(settings.number(key), value) for key, value in traced.items()}
        transformation: optax.GradientTransformation = factory(
            learning_rate, **{**settings.values, **numbers, **needed}
        )
        return transformation

    return make
