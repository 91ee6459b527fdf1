"""Clipping and decoupled weight decay around any optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.contract import Role
from sonew_compiled.errors import UsageError
from sonew_compiled.step_settings import StepSettings, check_matches

# Biases and the parameters of norms have fewer axes; by default they do not decay.
_LEAST_AXES = 2


def with_step_settings(
    factory: Callable[..., optax.GradientTransformation], settings: StepSettings, name: str
) -> Callable[..., optax.GradientTransformation]:
    r"""An optimizer's factory whose gradients are clipped and whose parameters decay.

        g <- clip(g, -clip_value, clip_value)
        g <- g min(1, clip_norm / |g|)          |g| the norm of all gradients together
        w <- w + update(g) - learning_rate * decay * w

    The state is the optimizer's own. Clipping acts on the mean over the batch: on the gradients that micro-batches and
    workers have summed up, and from which the scale of a loss has been divided.

    Args:
      factory: makes a transformation from the learning rate, with settings as traced scalars by keyword.
      settings: the settings of the step.
      name: the optimizer's name, for errors.

    Raises:
      UsageError: when the factory is called, if the optimizer takes no gradients and they are to be clipped, or its
        parameters are averages of what would have to decay.
    """
    clips = [
        *([] if settings.clip_value is None else [optax.clip(settings.clip_value)]),
        *([] if settings.clip_norm is None else [optax.clip_by_global_norm(settings.clip_norm)]),
    ]
    if not clips and not settings.decay:
        return factory

    def make(learning_rate: Any, **traced: Any) -> optax.GradientTransformation:
        inner = factory(learning_rate, **traced)
        if clips and hasattr(inner, "backward"):
            given = " and ".join(word for word in settings.flags() if word.startswith("--clip"))
            raise UsageError(f"{name} takes more than gradients, which alone can be clipped; leave out {given}")
        if settings.decay and hasattr(inner, "gradient_point"):
            raise UsageError(f"the parameters of {name} are averages; give its own --weight-decay in place of --decay")

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            for clip in clips:
                updates, _ = clip.update(updates, optax.EmptyState())
            updates, state = inner.update(updates, state, params)
            return _decayed(updates, params, learning_rate, settings), state

        made: optax.GradientTransformation = inner._replace(update=update)
        return made

    return make


def _decayed(updates: Any, params: Any, learning_rate: Any, settings: StepSettings) -> Any:
    if not settings.decay:
        return updates
    decay = settings.decay
    check_matches("no_decay", settings.no_decay, [_path(path) for path, _ in _flat(params)])

    def decayed(path: Any, update: jax.Array, param: jax.Array) -> jax.Array:
        if _is_exempt(_path(path), param, settings.no_decay):
            return update
        return update - jnp.asarray(learning_rate * decay).astype(param.dtype) * param

    return jax.tree_util.tree_map_with_path(decayed, updates, params)


def _flat(tree: Any) -> Any:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _path(path: Any) -> str:
    """The path of a parameter as `paths_of` has it."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or Role.PARAMETER.root


def _is_exempt(path: str, param: jax.Array, patterns: Sequence[str]) -> bool:
    if patterns:
        return any(fnmatchcase(path, pattern) for pattern in patterns)
    return param.ndim < _LEAST_AXES
