"""From an optimizer's settings to the function that makes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optax

from sonew_compiled.optimizer._sonew import sonew
from sonew_compiled.presets import OptimizerSettings


def optimizer_factory(settings: OptimizerSettings) -> Callable[[Any], optax.GradientTransformation]:
    """The optimizer as a function of its learning rate: a float, a schedule or a traced scalar."""

    def make(learning_rate: Any) -> optax.GradientTransformation:
        if settings.name == "adam":
            return optax.adam(learning_rate, b1=settings.b1, b2=settings.b2, eps=settings.eps)
        assert settings.band is not None
        return sonew(learning_rate, band=settings.band, b1=settings.b1, b2=settings.b2, eps=settings.eps)

    return make
