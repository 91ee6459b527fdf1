"""SOAP as an optax transformation: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.optimizer._average import unbias
from sonew_compiled.optimizer._eigenbasis import gram, rotated, rotated_sides, turned_bases
from sonew_compiled.optimizer._graft import saturate
from sonew_compiled.optimizer._refresh import refreshed


class ScaleBySoapState(NamedTuple):
    """State of `scale_by_soap`.

    Attributes:
      count: updates done, an int32 scalar.
      mu: `M`, the momentum, a tree like the parameters.
      nu: `V`, the second moments in the eigenbasis, a tree like the parameters.
      statistics: a tree with the tuple `(L, R)` at each leaf, of shape (rows, rows) and (columns, columns). A side
        longer than 4096 is left out, and the tuple of a leaf of rank 0 or 1 is empty.
      bases: likewise, `Q_L` and `Q_R`, whose columns are orthonormal.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in every optax state
    mu: Any
    nu: Any
    statistics: Any
    bases: Any


def scale_by_soap(
    *, b1: float = 0.95, b2: float = 0.95, eps: float = 1e-8, precond_interval: int = 10
) -> optax.GradientTransformation:
    r"""Precondition updates by SOAP.

    A tensor is a matrix `G` whose columns are its last axis:

    .. math::
      L_t &= \beta_2 L_{t-1} + (1 - \beta_2) G_t G_t^T, \quad R_t = \beta_2 R_{t-1} + (1 - \beta_2) G_t^T G_t \\
      M_t &= \beta_1 M_{t-1} + (1 - \beta_1) G_t, \quad
      V_t = \beta_2 V_{t-1} + (1 - \beta_2) (Q_L^T G_t Q_R)^2 \\
      U_t &= Q_L \left( \frac{Q_L^T M_t Q_R / (1 - \beta_1^t)}{\sqrt{V_t / (1 - \beta_2^t)} + \epsilon} \right) Q_R^T

    Every `precond_interval` steps, the first step included, `Q_L` and `Q_R` take a step of orthogonal iteration with
    `L` and `R`. They start as identities, so that the first steps are Adam's; the paper starts from the eigenvectors of
    the first statistics. Tensors of rank 0 and 1 follow Adam.

    Args:
      b1: decay of the momentum.
      b2: decay of the second moments and of the statistics.
      eps: added to the square root.
      precond_interval: steps from one change of the bases to the next.

    References:
      Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, 2024, arXiv 2409.11321, algorithms 3 and 4.
    """

    def init(params: optax.Params) -> ScaleBySoapState:
        return ScaleBySoapState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            nu=jax.tree.map(jnp.zeros_like, params),
            statistics=jax.tree.map(
                lambda p: tuple(jnp.zeros((n, n), p.dtype) for n in rotated_sides(p).values()), params
            ),
            bases=jax.tree.map(lambda p: tuple(jnp.eye(n, dtype=p.dtype) for n in rotated_sides(p).values()), params),
        )

    def update(
        updates: optax.Updates, state: ScaleBySoapState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleBySoapState]:
        del params
        tree: Any
        leaves, tree = jax.tree.flatten(updates)
        gradients = [saturate(g) for g in leaves]
        old_bases = tree.flatten_up_to(state.bases)
        mu = [b1 * m + (1 - b1) * g for g, m in zip(gradients, tree.flatten_up_to(state.mu), strict=True)]
        nu = [
            b2 * v + (1 - b2) * jnp.square(rotated(g, bases))
            for g, v, bases in zip(gradients, tree.flatten_up_to(state.nu), old_bases, strict=True)
        ]
        statistics = [
            tuple(b2 * s + (1 - b2) * gram(g, axis) for axis, s in zip(rotated_sides(g), sides, strict=True))
            for g, sides in zip(gradients, tree.flatten_up_to(state.statistics), strict=True)
        ]
        count = optax.safe_increment(state.count)
        unbias1, unbias2 = (unbias(decay, count, jnp.float32) for decay in (b1, b2))

        def direction(m: jax.Array, v: jax.Array, bases: tuple[jax.Array, ...]) -> jax.Array:
            denominator = jnp.sqrt(v * unbias2.astype(v.dtype)) + jnp.asarray(eps, v.dtype)
            return rotated(rotated(m * unbias1.astype(m.dtype), bases) / denominator, bases, back=True)

        moved = [direction(m, v, bases) for m, v, bases in zip(mu, nu, old_bases, strict=True)]
        bases = refreshed(state.count % precond_interval == 0, turned_bases, statistics, old_bases)
        return tree.unflatten(moved), ScaleBySoapState(
            count=count,
            mu=tree.unflatten(mu),
            nu=tree.unflatten(nu),
            statistics=tree.unflatten(statistics),
            bases=tree.unflatten(bases),
        )

    return optax.GradientTransformation(init, update)


def soap(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    precond_interval: int = 10,
) -> optax.GradientTransformation:
    """The SOAP optimizer: `w <- w - lr_t U_t`, `U_t` and all options of `scale_by_soap`."""
    scale = scale_by_soap(b1=b1, b2=b2, eps=eps, precond_interval=precond_interval)
    return optax.chain(scale, optax.scale_by_learning_rate(learning_rate))
