"""AdaGrad with a full matrix as an optax transformation."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from sonew_compiled.optimizer._full_matrix import parameter_vector
from sonew_compiled.optimizer._graft import saturate
from sonew_compiled.optimizer._inverse_root import refreshed_root
from sonew_compiled.optimizer._refresh import refreshed


class ScaleByFullAdagradState(NamedTuple):
    """State of `scale_by_full_adagrad`.

    Attributes:
      count: updates done, an int32 scalar.
      statistics: `G`, of shape (n, n) for n parameters.
      root: `G^{-1/2}` as of the last refresh, of shape (n, n).
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in every optax state
    statistics: jax.Array
    root: jax.Array


def scale_by_full_adagrad(*, eps: float = 1e-6, precond_interval: int = 1) -> optax.GradientTransformation:
    r"""Precondition updates by the inverse root of the sum of the gradients' outer products, over all parameters.

    .. math::
      G_t = G_{t-1} + g_t g_t^T, \quad u_t = (G_t + \epsilon ||G_t||_F I)^{-1/2} g_t

    The paper adds `delta I` to the root instead. Here the damping bounds the condition number of the iteration.

    Args:
      eps: damping relative to the Frobenius norm; at least the machine epsilon of the dtype in which `G` is stored.
      precond_interval: steps from one computation of the root to the next; the first step computes one.

    Raises:
      UsageError: the model has more than 4096 parameters; `init` raises it.

    References:
      Duchi, Hazan, Singer, Adaptive Subgradient Methods for Online Learning and Stochastic Optimization, JMLR 2011,
      figure 2 (ADAGRAD with full matrices, composite mirror descent).
    """

    def init(params: optax.Params) -> ScaleByFullAdagradState:
        vector = parameter_vector(params, "full-adagrad")
        return ScaleByFullAdagradState(
            count=jnp.zeros((), jnp.int32),
            statistics=jnp.zeros((vector.size, vector.size), vector.dtype),
            root=jnp.eye(vector.size, dtype=vector.dtype),
        )

    def update(
        updates: optax.Updates, state: ScaleByFullAdagradState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByFullAdagradState]:
        del params
        g, unravel = ravel_pytree(updates)
        g = saturate(g)
        statistics = state.statistics + g[:, None] * g
        root = refreshed(
            state.count % precond_interval == 0,
            lambda new, old: refreshed_root(new, old, 2, eps),
            statistics,
            state.root,
        )
        return unravel(root @ g), ScaleByFullAdagradState(
            count=optax.safe_increment(state.count), statistics=statistics, root=root
        )

    return optax.GradientTransformation(init, update)


def full_adagrad(
    learning_rate: optax.ScalarOrSchedule, *, eps: float = 1e-6, precond_interval: int = 1
) -> optax.GradientTransformation:
    """Full-matrix AdaGrad: `w <- w - lr_t u_t`, `u_t` and all options of `scale_by_full_adagrad`."""
    scale = scale_by_full_adagrad(eps=eps, precond_interval=precond_interval)
    return optax.chain(scale, optax.scale_by_learning_rate(learning_rate))
