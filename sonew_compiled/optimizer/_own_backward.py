"""Optimizers whose backward pass is their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class BackwardTransformation(NamedTuple):
    """An optax transformation that wants more of the backward pass than the gradients, and so makes its own.

    `compile_training` calls it; a loop of your own does `value, signals = tx.backward(params, batch, 1.0)`, and gives
    the signals to `update` in place of the gradients. In an `optax.chain` it would be lost, so it stands alone.

    Attributes:
      init: as any optax transformation's.
      update: `update(signals, state, params) -> (updates, state)`; the parameters must be given.
      backward: `backward(params, batch, cotangent) -> (loss, signals)`; the cotangent of the loss is a float32 scalar.
        Of the signals, what depends on the cotangent is proportional to it.
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]
    backward: Callable[[Any, Any, Any], tuple[jax.Array, Any]]


def with_learning_rate(scale: BackwardTransformation, learning_rate: optax.ScalarOrSchedule) -> BackwardTransformation:
    """The transformation and then a step down by the learning rate, as in an `optax.chain`."""
    inner = optax.GradientTransformation(scale.init, scale.update)
    chain = optax.chain(inner, optax.scale_by_learning_rate(learning_rate))
    return BackwardTransformation(chain.init, chain.update, scale.backward)


def rate_at(learning_rate: optax.ScalarOrSchedule, count: jax.Array) -> jax.Array:
    """A learning rate, or what a schedule says after `count` updates, as a float32 scalar."""
    return jnp.asarray(learning_rate(count) if callable(learning_rate) else learning_rate, jnp.float32)
