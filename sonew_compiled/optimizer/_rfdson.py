"""Robust frequent directions, a sketched online Newton step, as an optax transformation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sonew_compiled.optimizer._average import unbias
from sonew_compiled.optimizer._graft import graft, normalised, normalised_rmsprop, saturate
from sonew_compiled.optimizer._jacobi import symmetric_eigen
from sonew_compiled.optimizer._precision import in_float32


class ScaleByRfdsonState(NamedTuple):
    """State of `scale_by_rfdson`.

    Attributes:
      alpha: a scalar for each tensor, without `eps`, in a tree like the parameters.
      sketch: `B`, orthogonal rows, in a tree like the parameters with a leading axis of length `rank`.
    """

    alpha: Any
    sketch: Any


class RfdsonState(NamedTuple):
    """State of `rfdson`, without that of its learning rate.

    Attributes:
      count: updates done, an int32 scalar.
      mu: momentum of the grafted direction, a tree like the parameters.
      diagonal: the statistics of the graft, likewise.
      preconditioner: a `ScaleByRfdsonState`.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in every optax state
    mu: Any
    diagonal: Any
    preconditioner: ScaleByRfdsonState


def scale_by_rfdson(*, rank: int = 4, b2: float = 1.0, eps: float = 1.0) -> optax.GradientTransformation:
    r"""Precondition updates by a sketched sum of the gradients' outer products, tensor by tensor.

    `C` is the sketch `B` of `rank` rows with the gradient as one more row; its singular values are `s_i`:

    .. math::
      C &= [\sqrt{\beta_2} B_{t-1}; \sqrt{w} g_t] = U \,\mathrm{diag}(s)\, V^T, \quad \delta = \min_i s_i^2 \\
      B_t &= \mathrm{diag}(\sqrt{s^2 - \delta})\, V^T \text{ without its row of zeros}, \quad
      \alpha_t = \beta_2 \alpha_{t-1} + \delta / 2 \\
      \rho &= \alpha_t + \epsilon, \quad u_t = (\rho I + B_t^T B_t)^{-1} g_t
          = \frac{1}{\rho} \left( g_t - \sum_i \frac{b_i b_i^T g_t}{\rho + b_i^T b_i} \right)

    `alpha I + B^T B` differs from the sketched sum by at most half of the sum of all `delta`. The singular values come
    from the eigenvalues of `C C^T`.

    Args:
      rank: `m`, the rows of the sketch. The sketch takes the memory of `m` gradients, and a step `O(m n)` arithmetic.
      b2: decay of the sum, in which a gradient has the weight `w = 1 - b2`. At 1, as in the paper, the sum does not
        decay and `w` is 1.
      eps: damping, the paper's `alpha_0`.

    References:
      Luo, Chen, Zhang, Li, Zhang, Robust Frequent Directions with Application in Online Learning, JMLR 2019, arXiv
      1705.05067, algorithms 2 (RFD) and 3 (RFD-SON).
    """

    def init(params: optax.Params) -> ScaleByRfdsonState:
        return ScaleByRfdsonState(
            alpha=jax.tree.map(lambda p: jnp.zeros((), p.dtype), params),
            sketch=jax.tree.map(lambda p: jnp.zeros((rank, *p.shape), p.dtype), params),
        )

    def update(
        updates: optax.Updates, state: ScaleByRfdsonState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByRfdsonState]:
        del params
        tree: Any
        leaves, tree = jax.tree.flatten(updates)
        if not leaves:
            return updates, state
        gradients = [saturate(g) for g in leaves]
        sketches = tree.flatten_up_to(state.sketch)
        rows = [_rows(b, g, b2) for b, g in zip(sketches, gradients, strict=True)]
        # All tensors share one eigenproblem, because the number of rotation rounds takes the time, not their size.
        values, vectors = symmetric_eigen(jnp.stack([_gram(c) for c in rows]))
        moved = [
            _move(g, c, b2 * alpha, jnp.asarray(eps, alpha.dtype), values[i], vectors[i])
            for i, (g, c, alpha) in enumerate(zip(gradients, rows, tree.flatten_up_to(state.alpha), strict=True))
        ]
        u, alphas, sketch = (tree.unflatten(column) for column in zip(*moved, strict=True))
        return u, ScaleByRfdsonState(alpha=alphas, sketch=sketch)

    return optax.GradientTransformation(init, update)


def rfdson(
    learning_rate: optax.ScalarOrSchedule, *, b1: float = 0.9, b2: float = 0.95, rank: int = 4, eps: float = 0.1
) -> optax.GradientTransformation:
    r"""The RFD-SON optimizer with decaying sums, the step lengths of RMSProp on normalised gradients, and momentum.

    For each tensor, `u_t` is the result of `scale_by_rfdson` for normalised gradients, and

    .. math::
      n_t &= g_t / ||g_t||, \quad D_t = \beta_2 D_{t-1} + (1 - \beta_2) n_t^2, \quad
      a_t = n_t / \sqrt{D_t / (1 - \beta_2^t)} \\
      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) u_t ||a_t|| / ||u_t||, \quad w_t = w_{t-1} - \mathrm{lr}_t m_t

    The paper's own, without these three, is `optax.chain(scale_by_rfdson(), optax.scale_by_learning_rate(lr))`. On a
    deep network its steps are too long for one tensor and too short for another (`docs/internals/lab-notes.md`).

    Args:
      learning_rate: a number or a schedule.
      b1: decay of the momentum.
      b2: decay of the sums.
      rank: see `scale_by_rfdson`.
      eps: likewise; the sums of outer products that it damps have a trace of at most 1.

    References:
      See `scale_by_rfdson`; for the lengths, Agarwal et al. 2020, arXiv 2002.11803.
    """
    inner = scale_by_rfdson(rank=rank, b2=b2, eps=eps)

    def init(params: optax.Params) -> RfdsonState:
        return RfdsonState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            diagonal=jax.tree.map(jnp.zeros_like, params),
            preconditioner=inner.init(params),
        )

    def update(
        updates: optax.Updates, state: RfdsonState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, RfdsonState]:
        tree: Any
        units = jax.tree.map(lambda g: normalised(saturate(g)), updates)
        directions, preconditioner = inner.update(units, state.preconditioner, params)
        leaves, tree = jax.tree.flatten(units)
        count = optax.safe_increment(state.count)
        correction = unbias(b2, count, jnp.float32)
        mu, diagonal = [], []
        for n, u, m, d in zip(leaves, *map(tree.flatten_up_to, (directions, state.mu, state.diagonal)), strict=True):
            onto, d_next = normalised_rmsprop(n, d, b2=b2, unbias=correction)
            mu.append(b1 * m + (1 - b1) * graft(u, onto))
            diagonal.append(d_next)
        moved = tree.unflatten(mu)
        return moved, RfdsonState(
            count=count, mu=moved, diagonal=tree.unflatten(diagonal), preconditioner=preconditioner
        )

    return optax.chain(optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate))


def _rows(sketch: jax.Array, g: jax.Array, b2: float) -> jax.Array:
    """`C`: the sketch with the gradient as its last row."""
    if b2 == 1:
        return jnp.concatenate([sketch, g[None]])
    decay, weight = (jnp.sqrt(jnp.asarray(x, g.dtype)) for x in (b2, 1 - b2))
    return jnp.concatenate([decay * sketch, weight * g[None]])


@in_float32
def _move(
    g: jax.Array, c: jax.Array, alpha: jax.Array, eps: jax.Array, values: jax.Array, vectors: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The direction, the new alpha and the new sketch of one tensor."""
    # The last row vanishes.
    values, vectors = _descending(values, vectors)
    values = jnp.maximum(values, 0)
    delta = values[-1]
    kept = values[:-1]
    shrunk = kept - delta
    # The rows of U^T C have the squared lengths `values`.
    scale = jnp.sqrt(shrunk / jnp.where(kept > 0, kept, 1))
    transform = (vectors[:, :-1] * scale).astype(c.dtype)
    sketch = jnp.tensordot(transform.T, c, axes=1)
    alpha = alpha + (delta / 2).astype(alpha.dtype)
    products = _sums(sketch * g)
    damping = alpha + eps
    weights = products / (damping + shrunk.astype(c.dtype))
    # The product is computed row by row. IREE 3.13 puts the result of a matrix-vector product, or of a sum that is one,
    # on the stack if it is rounded afterwards. The result here is as large as a parameter.
    along = sum(weight * row for weight, row in zip(weights, sketch, strict=True))
    return (g - along) / damping, alpha, sketch


def _descending(values: jax.Array, vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues, the largest first, and their vectors as columns; equal values keep their order.

    Each value goes to the position that counts the values before it, because IREE 3.13 crashes on a sort for Vulkan,
    Metal and ROCm.
    """
    places = np.arange(len(values))
    before = (values[None] > values[:, None]) | ((values[None] == values[:, None]) & (places[None] < places[:, None]))
    goes = jnp.sum(before, axis=1) == places[:, None]  # (to, from)
    return jnp.sum(jnp.where(goes, values, 0), axis=1), jnp.sum(jnp.where(goes, vectors[:, None], 0), axis=2)


def _gram(c: jax.Array) -> jax.Array:
    """`C C^T` for the rows of a stack; the sums take the last axis first."""
    wide = c.astype(jnp.promote_types(c.dtype, jnp.float32))
    if c.ndim == 1:
        return wide[:, None] * wide
    partial = jnp.einsum("i...n,j...n->...ij", wide, wide)
    return jnp.sum(partial.reshape(-1, len(c), len(c)), axis=0)


def _sums(x: jax.Array) -> jax.Array:
    """The sum over all axes but the first."""
    return jnp.sum(x.reshape(len(x), -1), axis=1)
