"""PSGD-Kron as an optax transformation: a Kronecker product that descends towards whitened gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.optimizer._average import unbias
from sonew_compiled.optimizer._counter_noise import tensor_key, uniform_noise
from sonew_compiled.optimizer._graft import saturate
from sonew_compiled.optimizer._precision import in_float32
from sonew_compiled.optimizer._refresh import refreshed

Factors = tuple[jax.Array, ...]

# A side that is longer than this has a diagonal factor.
_LONGEST_SIDE = 4096
# The step of a factor, as a share of what the bound of its curvature allows.
_RATE = 0.1
_BOUND_DECAY = 0.9
# The largest root mean square of a tensor's step, and the largest entry.
_MOST_AVERAGE, _MOST_ENTRY = 2.0, 10.0
# Power iterations for the norm of a matrix, and the vectors that they start from.
_ITERATIONS, _STARTS = 4, 8


class ScaleByPsgdKronState(NamedTuple):
    """State of `scale_by_psgd_kron`.

    Attributes:
      count: updates done, an int32 scalar.
      mu: `M`, the momentum, a tree like the parameters.
      factors: a tree with a tuple at each leaf, `Q` of each side: of shape (n, n), or (n,) for a diagonal.
      bounds: likewise, `L` of each side, scalars.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in every optax state
    mu: Any
    factors: Any
    bounds: Any


def scale_by_psgd_kron(
    *, b1: float = 0.9, eps: float = 1e-9, precond_interval: int = 1
) -> optax.GradientTransformation:
    r"""Precondition updates by PSGD, whitening gradients by a Kronecker product.

    A tensor is a matrix `G` of `p` rows and `q` columns, the last axis, and `P` takes it to `Q_L Q_L G Q_R Q_R`, with
    symmetric positive definite `Q_L` and `Q_R`. Every `precond_interval` steps, the first step included, both descend
    on the criterion whose minimum whitens the gradients, so that `P(G)` has uncorrelated entries of variance 1:

    .. math::
      H_t &= P(G_t + \epsilon V_t), \quad T = H_t H_t^T, \quad \ell = ||T||_2 + q, \quad
      L_t = \max(0.9 L_{t-1} + 0.1 \ell, \ell) \\
      C &= I - \frac{0.1}{2 L_t} (T - q I), \quad Q_L \leftarrow C Q_L C

    and likewise `Q_R` with `T = H_t^T H_t` and `p`. Then both are balanced: their largest entries become equal, and `P`
    stays as it is. The direction is `U_t = P(M_t / (1 - \beta_1^t))` with the momentum
    `M_t = \beta_1 M_{t-1} + (1 - \beta_1) G_t`, shortened to a root mean square of 2, and then its entries to 10.

    `V` are random signs, from the hash of stochastic rounding, so that a run is repeatable; `\epsilon` is `eps` plus
    the machine epsilon times the gradient's entry. They keep `P` finite where gradients are zero. The norm of `T` is a
    lower bound by power iteration from random signs. A side longer than 4096, and a tensor of rank 0 or 1, has a
    diagonal `Q`. The first `Q` is a multiple of the identity with which the entries of `P(G_1)` have size 1. In the
    author's code `V` is normal, and the factors move at random steps.

    Args:
      b1: decay of the momentum.
      eps: the size of the noise, in the units of the gradient.
      precond_interval: steps from one change of the factors to the next.

    References:
      Li, Preconditioned Stochastic Gradient Descent, 2015, arXiv 1512.04202; Li, Stochastic Hessian Fittings with Lie
      Groups, 2024, arXiv 2402.11858. The update that keeps `Q` symmetric, the bound `L` and the limits of a step are
      those of the author's code, whose choice `QUAD` this is.
    """

    def init(params: optax.Params) -> ScaleByPsgdKronState:
        return ScaleByPsgdKronState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            factors=jax.tree.map(
                lambda p: tuple(
                    jnp.eye(n, dtype=p.dtype) if dense else jnp.ones((n,), p.dtype) for n, dense in _sides(p)
                ),
                params,
            ),
            bounds=jax.tree.map(lambda p: tuple(jnp.zeros((), p.dtype) for _ in _sides(p)), params),
        )

    def update(
        updates: optax.Updates, state: ScaleByPsgdKronState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByPsgdKronState]:
        del params
        tree: Any
        leaves, tree = jax.tree.flatten(updates)
        gradients = [saturate(g) for g in leaves]
        mu = [b1 * m + (1 - b1) * g for g, m in zip(gradients, tree.flatten_up_to(state.mu), strict=True)]

        def moved(gradients: list[jax.Array], old: tuple[list[Factors], list[Factors]]) -> Any:
            first, noise = state.count == 0, [tensor_key(state.count, tensor) for tensor in range(len(gradients))]
            new = [
                _moved(g, factors, bounds, key, first, jnp.asarray(eps, g.dtype))
                for g, factors, bounds, key in zip(gradients, *old, noise, strict=True)
            ]
            return [factors for factors, _ in new], [bounds for _, bounds in new]

        factors, bounds = refreshed(
            state.count % precond_interval == 0,
            moved,
            gradients,
            (tree.flatten_up_to(state.factors), tree.flatten_up_to(state.bounds)),
        )
        count = optax.safe_increment(state.count)
        correction = unbias(b1, count, jnp.float32)
        steps = [
            _limited(_preconditioned(sides, m * correction.astype(m.dtype)))
            for m, sides in zip(mu, factors, strict=True)
        ]
        return tree.unflatten(steps), ScaleByPsgdKronState(
            count=count, mu=tree.unflatten(mu), factors=tree.unflatten(factors), bounds=tree.unflatten(bounds)
        )

    return optax.GradientTransformation(init, update)


def psgd_kron(
    learning_rate: optax.ScalarOrSchedule, *, b1: float = 0.9, eps: float = 1e-9, precond_interval: int = 1
) -> optax.GradientTransformation:
    """The optimizer PSGD-Kron: `w <- w - lr_t U_t`, `U_t` and all options of `scale_by_psgd_kron`."""
    scale = scale_by_psgd_kron(b1=b1, eps=eps, precond_interval=precond_interval)
    return optax.chain(scale, optax.scale_by_learning_rate(learning_rate))


def _shape(x: jax.Array) -> tuple[int, ...]:
    """The shape of the matrix, or of the vector."""
    return (x.size // x.shape[-1], x.shape[-1]) if x.ndim > 1 and x.size else (x.size,)


def _sides(x: jax.Array) -> list[tuple[int, bool]]:
    """The length of each side, and whether it has a dense factor."""
    shape = _shape(x)
    return [(n, len(shape) == 2 and n <= _LONGEST_SIDE) for n in shape]


def _preconditioned(factors: Factors, x: jax.Array) -> jax.Array:
    """`P(x)`, each side's factor applied twice."""
    y = x.reshape(_shape(x))
    for axis, q in enumerate(factors):
        if q.ndim == 2:
            y = q @ (q @ y) if axis == 0 else (y @ q) @ q
        else:
            y = y * jnp.square(q if axis == y.ndim - 1 else q[:, None])
    return y.reshape(x.shape)


def _limited(u: jax.Array) -> jax.Array:
    if u.size == 0:
        return u
    average = jnp.sqrt(jnp.mean(jnp.square(saturate(u)), dtype=jnp.promote_types(u.dtype, jnp.float32)))
    shorter = _MOST_AVERAGE / jnp.maximum(average, _MOST_AVERAGE)
    return jnp.clip(u * shorter.astype(u.dtype), -_MOST_ENTRY, _MOST_ENTRY)


@in_float32
def _moved(
    g: jax.Array, factors: Factors, bounds: Factors, key: jax.Array, is_first: jax.Array, eps: jax.Array
) -> tuple[Factors, Factors]:
    """The factors and bounds of one tensor after a gradient."""
    if g.size == 0:
        return factors, bounds
    signs = jnp.where(uniform_noise(key, g.shape, g.dtype) < 0.5, -1, 1).astype(g.dtype)
    factors = _started(is_first, g, eps, factors)
    h = _preconditioned(factors, g + (eps + jnp.finfo(g.dtype).eps * jnp.abs(g)) * signs).reshape(_shape(g))
    h = saturate(h)
    new: list[jax.Array] = []
    new_bounds: list[jax.Array] = []
    for axis, (q, bound) in enumerate(zip(factors, bounds, strict=True)):
        others = h.size // len(q)
        if q.ndim == 1:
            square = jnp.square(h)
            t = square if h.ndim == 1 else jnp.sum(square, axis=1 - axis)
            norm = jnp.max(t)
        else:
            t = h @ h.T if axis == 0 else h.T @ h
            norm = _norm(t, key)
        least = norm + others
        bound = jnp.maximum(_BOUND_DECAY * bound + (1 - _BOUND_DECAY) * least, least)
        share = _RATE / 2 / bound
        if q.ndim == 1:
            q = q * jnp.square(1 - share * (t - others))
        else:
            half = q - share * (t @ q - others * q)
            q = half - share * (half @ t - others * half)
            q = (q + q.T) / 2
        new.append(q)
        new_bounds.append(bound)
    largest = [jnp.max(jnp.abs(q)) for q in new]
    if len(new) == 2:
        mean = jnp.sqrt(largest[0]) * jnp.sqrt(largest[1])
        new = [q * (mean / each) for q, each in zip(new, largest, strict=True)]
    return tuple(new), tuple(new_bounds)


def _started(is_first: jax.Array, g: jax.Array, eps: jax.Array, factors: Factors) -> Factors:
    """The factors, which before the first step are one multiple of the identity for all sides."""
    largest = jnp.maximum(jnp.max(jnp.abs(g)), jnp.finfo(g.dtype).tiny)
    size = largest * jnp.sqrt(jnp.sqrt(jnp.mean(jnp.square(jnp.square(g / largest))))) + eps
    scale = size ** (-1 / (2 * len(factors)))
    return tuple(
        jnp.where(is_first, scale * (jnp.eye(len(q), dtype=q.dtype) if q.ndim == 2 else jnp.ones_like(q)), q)
        for q in factors
    )


def _norm(t: jax.Array, key: jax.Array) -> jax.Array:
    """A lower bound of the spectral norm of a positive semidefinite matrix, by power iteration from random signs."""
    tiny = jnp.finfo(t.dtype).tiny
    largest = jnp.max(jnp.abs(t)) + tiny
    t = t / largest
    signs = jnp.where(uniform_noise(~key, (len(t), _STARTS), t.dtype) < 0.5, -1, 1).astype(t.dtype)
    v = signs
    for _ in range(_ITERATIONS):
        v = t @ (v / (jnp.sqrt(jnp.sum(jnp.square(v), axis=0)) + tiny))
    return largest * jnp.max(jnp.sqrt(jnp.sum(jnp.square(v), axis=0)))
