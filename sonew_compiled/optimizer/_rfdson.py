"""Robust frequent directions, a sketched online Newton step, as an optax transformation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sonew_compiled.optimizer._graft import saturate
from sonew_compiled.optimizer._jacobi import symmetric_eigen
from sonew_compiled.optimizer._precision import in_float32


class ScaleByRfdsonState(NamedTuple):
    """State of `scale_by_rfdson`.

    Attributes:
      alpha: of each tensor, a tree like the parameters of scalars.
      sketch: `B`, a tree like the parameters with an axis of `rank` in front; orthogonal rows.
    """

    alpha: Any
    sketch: Any


def scale_by_rfdson(*, rank: int = 4, eps: float = 1.0) -> optax.GradientTransformation:
    r"""Precondition updates by a sketched sum of the gradients' outer products, tensor by tensor.

    With `C` the sketch `B` of `rank` rows and the gradient as one row more, whose singular values are `s_i`:

    .. math::
      C &= U \,\mathrm{diag}(s)\, V^T, \quad \delta = \min_i s_i^2 \\
      B_t &= \mathrm{diag}(\sqrt{s^2 - \delta})\, V^T \text{ without its row of zeros}, \quad
      \alpha_t = \alpha_{t-1} + \delta / 2 \\
      u_t &= (\alpha_t I + B_t^T B_t)^{-1} g_t
          = \frac{1}{\alpha_t} \left( g_t - \sum_i \frac{b_i b_i^T g_t}{\alpha_t + b_i^T b_i} \right)

    `alpha I + B^T B` is within `delta_1 + ... + delta_t`, halved, of the sum that is sketched. The singular values come
    from the eigenvalues of `C C^T`.

    Args:
      rank: `m`, rows of the sketch; the memory of as many gradients, `O(m n)` arithmetic.
      eps: `alpha_0`.

    References:
      Luo, Chen, Zhang, Li, Zhang, Robust Frequent Directions with Application in Online Learning, JMLR 2019, arXiv
      1705.05067, algorithms 2 (RFD) and 3 (RFD-SON).
    """

    def init(params: optax.Params) -> ScaleByRfdsonState:
        return ScaleByRfdsonState(
            alpha=jax.tree.map(lambda p: jnp.full((), eps, p.dtype), params),
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
        rows = [jnp.concatenate([b, g[None]]) for b, g in zip(sketches, gradients, strict=True)]
        # One eigenproblem for all tensors: the rounds of rotations are what takes time, not their size.
        values, vectors = symmetric_eigen(jnp.stack([_gram(c) for c in rows]))
        moved = [
            _move(g, c, alpha, values[i], vectors[i])
            for i, (g, c, alpha) in enumerate(zip(gradients, rows, tree.flatten_up_to(state.alpha), strict=True))
        ]
        u, alphas, sketch = (tree.unflatten(column) for column in zip(*moved, strict=True))
        return u, ScaleByRfdsonState(alpha=alphas, sketch=sketch)

    return optax.GradientTransformation(init, update)


def rfdson(learning_rate: optax.ScalarOrSchedule, *, rank: int = 4, eps: float = 1.0) -> optax.GradientTransformation:
    """The RFD-SON optimizer: `w <- w - lr_t u_t`, `u_t` and all options of `scale_by_rfdson`."""
    return optax.chain(scale_by_rfdson(rank=rank, eps=eps), optax.scale_by_learning_rate(learning_rate))


@in_float32
def _move(
    g: jax.Array, c: jax.Array, alpha: jax.Array, values: jax.Array, vectors: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The direction, the new alpha and the new sketch of one tensor."""
    # The last row is the one that vanishes.
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
    weights = products / (alpha + shrunk.astype(c.dtype))
    # Row by row: of a product of a matrix with a vector, and of a sum that is one, IREE 3.13 keeps the result, a tensor
    # like the parameters, on the stack where it is rounded after.
    along = sum(weight * row for weight, row in zip(weights, sketch, strict=True))
    return (g - along) / alpha, alpha, sketch


def _descending(values: jax.Array, vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues, the largest first, with their vectors, which are columns; equal ones in the order they have.

    Each goes to where as many come before it: IREE 3.13 crashes on a sort for Vulkan, Metal and ROCm.
    """
    places = np.arange(len(values))
    before = (values[None] > values[:, None]) | ((values[None] == values[:, None]) & (places[None] < places[:, None]))
    goes = jnp.sum(before, axis=1) == places[:, None]  # (to, from)
    return jnp.sum(jnp.where(goes, values, 0), axis=1), jnp.sum(jnp.where(goes, vectors[:, None], 0), axis=2)


def _gram(c: jax.Array) -> jax.Array:
    """`C C^T` of the rows of a stack, summed over the last axis first."""
    wide = c.astype(jnp.promote_types(c.dtype, jnp.float32))
    if c.ndim == 1:
        return wide[:, None] * wide
    partial = jnp.einsum("i...n,j...n->...ij", wide, wide)
    return jnp.sum(partial.reshape(-1, len(c), len(c)), axis=0)


def _sums(x: jax.Array) -> jax.Array:
    """The sum over all axes but the first."""
    return jnp.sum(x.reshape(len(x), -1), axis=1)
