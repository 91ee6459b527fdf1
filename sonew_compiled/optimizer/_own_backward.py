"""Optimizers with a backward pass of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class BackwardTransformation(NamedTuple):
    """An optax transformation that needs more of the backward pass than the gradients, and so has its own.

    `compile_training` calls `backward`. A loop of your own does `value, signals = tx.backward(params, batch, 1.0)` and
    gives the signals to `update` in place of the gradients. An `optax.chain` would lose `backward`, so the
    transformation must stand alone.

    Attributes:
      init: as any optax transformation's.
      update: `update(signals, state, params) -> (updates, state)`; the parameters must be given.
      backward: `backward(params, batch, cotangent) -> (loss, signals)`; the cotangent of the loss is a float32 scalar.
        Each signal either is proportional to the cotangent or does not depend on it.
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]
    backward: Callable[[Any, Any, Any], tuple[jax.Array, Any]]


def with_learning_rate(scale: BackwardTransformation, learning_rate: optax.ScalarOrSchedule) -> BackwardTransformation:
    """The transformation followed by a step down at the learning rate, as an `optax.chain` would do it."""
    inner = optax.GradientTransformation(scale.init, scale.update)
    chain = optax.chain(inner, optax.scale_by_learning_rate(learning_rate))
    return BackwardTransformation(chain.init, chain.update, scale.backward)


def rate_at(learning_rate: optax.ScalarOrSchedule, count: jax.Array) -> jax.Array:
    """The learning rate, or a schedule's rate after `count` updates, as a float32 scalar."""
    return jnp.asarray(learning_rate(count) if callable(learning_rate) else learning_rate, jnp.float32)
