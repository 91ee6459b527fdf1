"""KL-Shampoo as an optax transformation: the Kronecker product that is nearest to the gradients' covariance."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.optimizer._average import unbias
from sonew_compiled.optimizer._eigenbasis import gram, rotated, rotated_sides, turned_bases
from sonew_compiled.optimizer._graft import saturate
from sonew_compiled.optimizer._refresh import refreshed

Arrays = tuple[jax.Array, ...]

_ADAM_EPS = 1e-8


class ScaleByKlShampooState(NamedTuple):
    """State of `scale_by_kl_shampoo`.

    Attributes:
      count: updates done, an int32 scalar.
      mu: `M`, the momentum, a tree like the parameters.
      values: a tree with the pair `(a, b)` at each leaf, of shape (rows,) and (columns,).
      factors: likewise, `(S, T)` of shape (rows, rows) and (columns, columns). A side longer than 4096 is left out.
      bases: likewise, `Q_S` and `Q_T`, whose columns are orthonormal.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in every optax state
    mu: Any
    values: Any
    factors: Any
    bases: Any


def scale_by_kl_shampoo(
    *, b1: float = 0.9, b2: float = 0.95, eps: float = 1e-6, precond_interval: int = 10
) -> optax.GradientTransformation:
    r"""Precondition updates of tensors of rank 2 or more by KL-Shampoo.

    A tensor is a matrix `G` of `p` rows and `q` columns, the last axis. `S \otimes T` approximates the covariance of
    its entries. Of all Kronecker products, the one with the least Kullback-Leibler divergence between normal
    distributions has `S = E[G T^{-1} G^T] / q` and `T = E[G^T S^{-1} G] / p`, which moving averages follow. With
    eigenvalues `a` of `S` and `b` of `T`, `A = diag(a)`, `B = diag(b)`, and squares and quotients by entries:

    .. math::
      S_t &= \beta_2 S_{t-1} + (1 - \beta_2) G_t Q_T B_{t-1}^{-1} Q_T^T G_t^T / q \\
      T_t &= \beta_2 T_{t-1} + (1 - \beta_2) G_t^T Q_S A_{t-1}^{-1} Q_S^T G_t / p \\
      H_t &= Q_S^T G_t Q_T, \quad
      a_t = \beta_2 a_{t-1} + (1 - \beta_2) H_t^2 (1 / b_{t-1}) / q, \quad
      b_t = \beta_2 b_{t-1} + (1 - \beta_2) (H_t^2)^T (1 / a_{t-1}) / p \\
      M_t &= \beta_1 M_{t-1} + (1 - \beta_1) G_t, \quad
      U_t = Q_S A_t^{-1/2} Q_S^T \frac{M_t}{1 - \beta_1^t} Q_T B_t^{-1/2} Q_T^T

    Every `precond_interval` steps, the first step included, `Q_S` and `Q_T` take a step of orthogonal iteration with
    `S` and `T`, and `a` and `b` become the diagonals of `Q_S^T S Q_S` and `Q_T^T T Q_T`. As long as the bases stay, the
    averages above keep them equal to those. The paper carries them over instead.

    The bases start as identities, and both factors as `r I`, with the root mean square `r` of the first gradient's
    entries. Steps are not grafted.

    Args:
      b1: decay of the momentum.
      b2: decay of the factors and of their eigenvalues.
      eps: is added to the eigenvalues of a factor wherever they are divided by, relative to their mean.
      precond_interval: steps from one change of the bases to the next.

    References:
      Lin, Lowe, Dangel, Eschenhagen, Xu, Grosse, Understanding and Improving Shampoo and SOAP via Kullback-Leibler
      Minimization, 2025, arXiv 2509.03378: the estimation of both factors by moving averages, with bases by QR and
      eigenvalues that are averaged in between.
    """

    def init(params: optax.Params) -> ScaleByKlShampooState:
        def of_sides(make: Any) -> Any:
            return jax.tree.map(lambda p: tuple(make(n, dtype=p.dtype) for n in rotated_sides(p).values()), params)

        return ScaleByKlShampooState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            values=jax.tree.map(lambda p: tuple(jnp.zeros((n,), p.dtype) for n in _matrix(p).shape), params),
            factors=of_sides(lambda n, dtype: jnp.zeros((n, n), dtype)),
            bases=of_sides(jnp.eye),
        )

    def update(
        updates: optax.Updates, state: ScaleByKlShampooState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByKlShampooState]:
        del params
        tree: Any
        leaves, tree = jax.tree.flatten(updates)
        gradients = [saturate(g) for g in leaves]
        mu = [b1 * m + (1 - b1) * g for g, m in zip(gradients, tree.flatten_up_to(state.mu), strict=True)]
        count = optax.safe_increment(state.count)
        correction = unbias(b1, count, jnp.float32)
        old_bases = tree.flatten_up_to(state.bases)
        averaged = []
        for g, values, factors, bases in zip(
            gradients, tree.flatten_up_to(state.values), tree.flatten_up_to(state.factors), old_bases, strict=True
        ):
            start = _started(state.count == 0, g, values, factors)
            averaged.append(_averaged(b2, eps, g, *start, bases))
        moved = [
            rotated(_whitened(rotated(m, bases), values, eps), bases, back=True) * correction.astype(m.dtype)
            for m, (values, _), bases in zip(mu, averaged, old_bases, strict=True)
        ]
        bases, values = refreshed(
            state.count % precond_interval == 0,
            lambda factors, old: _turned(gradients, factors, *old),
            [factors for _, factors in averaged],
            (old_bases, [values for values, _ in averaged]),
        )
        return tree.unflatten(moved), ScaleByKlShampooState(
            count=count,
            mu=tree.unflatten(mu),
            values=tree.unflatten(values),
            factors=tree.unflatten([factors for _, factors in averaged]),
            bases=tree.unflatten(bases),
        )

    return optax.GradientTransformation(init, update)


def kl_shampoo(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-6,
    precond_interval: int = 10,
) -> optax.GradientTransformation:
    """The KL-Shampoo optimizer: `w <- w - lr_t U_t`, `U_t` and all options of `scale_by_kl_shampoo`.

    Tensors of rank 0 and 1, and those without entries, follow Adam with `b1` and `b2`.
    """
    kinds = optax.partition(
        {
            "matrix": scale_by_kl_shampoo(b1=b1, b2=b2, eps=eps, precond_interval=precond_interval),
            "other": optax.scale_by_adam(b1=b1, b2=b2, eps=_ADAM_EPS),
        },
        lambda params: jax.tree.map(lambda p: "matrix" if p.ndim >= 2 and p.size else "other", params),
    )
    return optax.chain(kinds, optax.scale_by_learning_rate(learning_rate))


def _matrix(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _started(is_first: jax.Array, g: jax.Array, values: Arrays, factors: Arrays) -> tuple[Arrays, Arrays]:
    """The eigenvalues and the factors, which are those of `r I` before the first step."""
    square = jnp.mean(jnp.square(g), dtype=jnp.promote_types(g.dtype, jnp.float32))
    r = jnp.sqrt(jnp.where(square > 0, square, 1)).astype(g.dtype)  # 1 for a gradient of zeros
    return (
        tuple(jnp.where(is_first, r, each) for each in values),
        tuple(jnp.where(is_first, r * jnp.eye(len(each), dtype=each.dtype), each) for each in factors),
    )


def _averaged(
    b2: float, eps: float, g: jax.Array, values: Arrays, factors: Arrays, bases: Arrays
) -> tuple[Arrays, Arrays]:
    """The eigenvalues and the factors after a gradient, each side whitened by the other."""
    matrix, by_axis = _matrix(g), dict(zip(rotated_sides(g), bases, strict=True))
    a, b = (1 / _damped(each, eps) for each in values)
    of_rows = matrix @ by_axis[1] if 1 in by_axis else matrix
    of_columns = by_axis[0].T @ matrix if 0 in by_axis else matrix
    square = jnp.square(of_columns @ by_axis[1] if 1 in by_axis else of_columns)
    seen = (jnp.mean(square * b, axis=1), jnp.mean(square * a[:, None], axis=0))
    whitened = (of_rows * jnp.sqrt(b), of_columns * jnp.sqrt(a)[:, None])
    return (
        tuple(b2 * old + (1 - b2) * new for old, new in zip(values, seen, strict=True)),
        tuple(
            b2 * old + (1 - b2) / matrix.shape[1 - axis] * gram(whitened[axis], axis)
            for axis, old in zip(by_axis, factors, strict=True)
        ),
    )


def _turned(like: list[jax.Array], factors: list[Arrays], bases: list[Arrays], values: list[Arrays]) -> Any:
    """The bases after a step towards the eigenvectors of the factors, and the factors' diagonals in them."""
    bases = turned_bases(factors, bases)
    diagonals = []
    for g, sides, turned, old in zip(like, factors, bases, values, strict=True):
        new = dict(enumerate(old))
        for axis, factor, basis in zip(rotated_sides(g), sides, turned, strict=True):
            new[axis] = jnp.sum(basis * (factor @ basis), axis=0)
        diagonals.append(tuple(new.values()))
    return bases, diagonals


def _whitened(rotated: jax.Array, values: Arrays, eps: float) -> jax.Array:
    """A tensor in the bases, over the square roots of both sides' eigenvalues."""
    a, b = (jax.lax.rsqrt(_damped(each, eps)) for each in values)
    return (_matrix(rotated) * a[:, None] * b).reshape(rotated.shape)


def _damped(values: jax.Array, eps: float) -> jax.Array:
    values = jnp.maximum(values, 0)  # rounding makes the smallest negative
    return values + jnp.asarray(eps, values.dtype) * jnp.mean(values)
