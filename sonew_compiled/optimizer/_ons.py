"""The online Newton step as an optax transformation."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from sonew_compiled.optimizer._full_matrix import parameter_vector
from sonew_compiled.optimizer._graft import saturate
from sonew_compiled.optimizer._precision import wants_float32_statistics


class ScaleByOnsState(NamedTuple):
    """State of `scale_by_ons`.

    Attributes:
      inverse: `A^{-1}`, of shape (n, n) for n parameters.
    """

    inverse: jax.Array


def scale_by_ons(*, eps: float = 1.0) -> optax.GradientTransformation:
    r"""Precondition updates by the inverse of the sum of the gradients' outer products, over all parameters.

    .. math::
      A_t = A_{t-1} + g_t g_t^T, \quad A_0 = \epsilon I, \quad u_t = A_t^{-1} g_t

    The state is the inverse. The Sherman-Morrison formula updates it with `v = A_{t-1}^{-1} g_t`:
    `A_t^{-1} = A_{t-1}^{-1} - v v^T / (1 + g_t^T v)`, so `u_t = v / (1 + g_t^T v)`. There is no projection.

    Args:
      eps: the multiple of the identity that `A_0` is.

    Raises:
      UsageError: the model has more than 4096 parameters, or the precision policy keeps the statistics in 16 bits;
        `init` raises it.

    References:
      Hazan, Agarwal, Kale, Logarithmic Regret Algorithms for Online Convex Optimization, Machine Learning 2007, figure
      2 (online Newton step); the learning rate is its `1 / beta`.
    """

    def init(params: optax.Params) -> ScaleByOnsState:
        wants_float32_statistics("ons", "subtracts from an inverse that must stay positive definite")
        vector = parameter_vector(params, "ons")
        return ScaleByOnsState(inverse=jnp.eye(vector.size, dtype=vector.dtype) / eps)

    def update(
        updates: optax.Updates, state: ScaleByOnsState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByOnsState]:
        del params
        g, unravel = ravel_pytree(updates)
        g = saturate(g)
        v = state.inverse @ g
        # The sum is at least 1 in exact arithmetic.
        scale = 1 / jnp.maximum(1 + jnp.sum(g * v), 1)
        return unravel(v * scale), ScaleByOnsState(inverse=state.inverse - v[:, None] * (v * scale))

    return optax.GradientTransformation(init, update)


def ons(learning_rate: optax.ScalarOrSchedule, *, eps: float = 1.0) -> optax.GradientTransformation:
    """The online Newton step: `w <- w - lr_t u_t`, `u_t` and all options of `scale_by_ons`."""
    return optax.chain(scale_by_ons(eps=eps), optax.scale_by_learning_rate(learning_rate))
