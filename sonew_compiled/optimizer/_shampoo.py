"""Shampoo as an optax transformation: Kronecker-factored preconditioners of blocks of a matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.optimizer._average import unbias
from sonew_compiled.optimizer._graft import graft, normalised, normalised_rmsprop, saturate
from sonew_compiled.optimizer._inverse_root import refreshed_root
from sonew_compiled.optimizer._refresh import refreshed

Sides = tuple[jax.Array, jax.Array]


def of_both_sides(block: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    """Shampoo's direction of a block, `L^{-1/4} G R^{-1/4}`."""
    return left @ block @ right


class ScaleByShampooState(NamedTuple):
    """State of `scale_by_shampoo`.

    Attributes:
      count: updates done, an int32 scalar.
      mu: momentum of the grafted direction, a tree like the parameters.
      diagonal: `D`, the statistics of the graft, a tree like the parameters.
      statistics: a tree with a tuple of pairs `(L, R)` at each leaf, one for each block, of shape (rows, rows) and
        (columns, columns). A leaf of rank 0 or 1 has none.
      roots: likewise, `L^{-1/4}` and `R^{-1/4}` at the last refresh.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in every optax state
    mu: Any
    diagonal: Any
    statistics: Any
    roots: Any


def scale_by_shampoo(
    *,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-6,
    precond_interval: int = 20,
    block_size: int = 2048,
    precondition: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] = of_both_sides,
) -> optax.GradientTransformation:
    r"""Precondition updates by Shampoo, with the step lengths of RMSProp on normalised gradients.

    A tensor is a matrix whose columns are its last axis, cut into blocks `G` of at most `block_size` rows and columns:

    .. math::
      L_t &= \beta_2 L_{t-1} + (1 - \beta_2) G_t G_t^T, \quad R_t = \beta_2 R_{t-1} + (1 - \beta_2) G_t^T G_t \\
      P_t &= L^{-1/4} G_t R^{-1/4} \quad \text{with the roots of the last refresh} \\
      D_t &= \beta_2 D_{t-1} + (1 - \beta_2) (g_t / ||g_t||)^2, \quad
      a_t = (g_t / ||g_t||) / \sqrt{D_t / (1 - \beta_2^t)} \\
      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) P_t ||a_t|| / ||P_t||

    Tensors of rank 0 and 1 move along `a_t` itself.

    Args:
      b1: decay of the momentum.
      b2: decay of the statistics.
      eps: damping of `L` and `R`, relative to their Frobenius norms; at least the machine epsilon of the dtype in which
        they are stored.
      precond_interval: steps from one computation of the roots to the next; the first step computes them.
      block_size: the largest side of a block.
      precondition: the direction `P` of a block, from the block and both roots.

    References:
      Gupta, Koren, Singer, Shampoo: Preconditioned Stochastic Tensor Optimization, 2018, arXiv 1802.09568, algorithm 1;
      Anil et al., Scalable Second Order Optimization for Deep Learning, 2020, arXiv 2002.09018, sections 3 and 4 (the
      interval, blocks, grafting, the roots by coupled Newton iteration); for the normalised graft Agarwal et al. 2020,
      arXiv 2002.11803.
    """

    def init(params: optax.Params) -> ScaleByShampooState:
        def squares(p: jax.Array, make: Any) -> tuple[Sides, ...]:
            shapes = [block.shape for block in _blocks(p, block_size)]
            return tuple((make(rows, dtype=p.dtype), make(columns, dtype=p.dtype)) for rows, columns in shapes)

        def zeros(n: int, dtype: Any) -> jax.Array:
            return jnp.zeros((n, n), dtype)

        return ScaleByShampooState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            diagonal=jax.tree.map(jnp.zeros_like, params),
            statistics=jax.tree.map(lambda p: squares(p, zeros), params),
            roots=jax.tree.map(lambda p: squares(p, jnp.eye), params),
        )

    def update(
        updates: optax.Updates, state: ScaleByShampooState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByShampooState]:
        del params
        tree: Any
        leaves, tree = jax.tree.flatten(updates)
        gradients = [saturate(g) for g in leaves]
        statistics = [
            tuple(
                (b2 * left + (1 - b2) * block @ block.T, b2 * right + (1 - b2) * block.T @ block)
                for block, (left, right) in zip(_blocks(g, block_size), pairs, strict=True)
            )
            for g, pairs in zip(gradients, tree.flatten_up_to(state.statistics), strict=True)
        ]
        roots = refreshed(
            state.count % precond_interval == 0,
            lambda new, old: jax.tree.map(lambda a, x: refreshed_root(a, x, 4, eps), new, old),
            statistics,
            tree.flatten_up_to(state.roots),
        )
        count = optax.safe_increment(state.count)
        correction = unbias(b2, count, jnp.float32)
        moved = [
            _move(g, m, d, pairs, precondition, b1=b1, b2=b2, correction=correction, block_size=block_size)
            for g, m, d, pairs in zip(
                gradients, tree.flatten_up_to(state.mu), tree.flatten_up_to(state.diagonal), roots, strict=True
            )
        ]
        mu = tree.unflatten([m for m, _ in moved])
        return mu, ScaleByShampooState(
            count=count,
            mu=mu,
            diagonal=tree.unflatten([d for _, d in moved]),
            statistics=tree.unflatten(statistics),
            roots=tree.unflatten(roots),
        )

    return optax.GradientTransformation(init, update)


def shampoo(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-6,
    precond_interval: int = 20,
    block_size: int = 2048,
) -> optax.GradientTransformation:
    """The Shampoo optimizer: `w <- w - lr_t m_t`, `m_t` and all options of `scale_by_shampoo`."""
    scale = scale_by_shampoo(b1=b1, b2=b2, eps=eps, precond_interval=precond_interval, block_size=block_size)
    return optax.chain(scale, optax.scale_by_learning_rate(learning_rate))


def _move(
    g: jax.Array,
    m: jax.Array,
    d: jax.Array,
    roots: tuple[Sides, ...],
    precondition: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    *,
    b1: float,
    b2: float,
    correction: jax.Array,
    block_size: int,
) -> tuple[jax.Array, jax.Array]:
    """The new momentum and the new `D` of one tensor."""
    if g.size == 0:
        return m, d
    onto, d = normalised_rmsprop(normalised(g), d, b2=b2, unbias=correction)
    direction = onto
    if roots:
        blocks = [precondition(block, *sides) for block, sides in zip(_blocks(g, block_size), roots, strict=True)]
        direction = graft(_joined(blocks, g.shape, block_size), onto)
    return b1 * m + (1 - b1) * direction, d


def _blocks(x: jax.Array, size: int) -> Iterator[jax.Array]:
    """The blocks of a tensor of rank 2 or more, row by row; none for lower ranks and for tensors without entries."""
    if x.ndim < 2 or x.size == 0:
        return
    matrix = x.reshape(-1, x.shape[-1])
    for i in range(0, matrix.shape[0], size):
        for j in range(0, matrix.shape[1], size):
            yield matrix[i : i + size, j : j + size]


def _joined(blocks: list[jax.Array], shape: tuple[int, ...], size: int) -> jax.Array:
    width = math.ceil(shape[-1] / size)
    rows = [jnp.concatenate(blocks[i : i + width], axis=1) for i in range(0, len(blocks), width)]
    return jnp.concatenate(rows, axis=0).reshape(shape)
