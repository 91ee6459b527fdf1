"""The chains of all tensors as one, preconditioned block by block: a graph that is as large for any number of tensors.

The elimination of a wide band is hundreds of operations. If each tensor has its own, XLA's compiler for processors
takes seconds for each, and its code computes most of them several times over. Here it compiles one loop over blocks
that fit a core's cache.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sonew_compiled.optimizer._chain import Chain, Window
from sonew_compiled.optimizer._logdet import Bands, apply, factorize

_BLOCK = 4096


class Joined:
    """The statistics and the moments of several tensors of one dtype, one after the other in the order of their chains.

    Between two tensors, and before and after all, lie entries of an identity matrix without edges, which are also what
    `Chain.shift` fills in. Removing an edge looks at the systems of `b` entries, each of which reaches `b` further, so
    `2 b` such entries keep a tensor from the next.
    """

    def __init__(self, chains: Sequence[Chain], bands: Sequence[Bands], moments: Sequence[jax.Array]) -> None:
        """Joins `H` and `m` of the tensors, each of shape (rows, cols); all have as many bands, of one dtype."""
        self._chains = tuple(chains)
        self._line = _join(self._chains, [(*H, m) for H, m in zip(bands, moments, strict=True)])

    def largest_rows(self) -> list[jax.Array]:
        """For each tensor `max_i(H[i,i] + max_k |H[i,k]|)`, a scalar."""
        rows: list[jax.Array] = _largest_rows(self._chains, self._line)
        return rows

    def directions(self, dampings: Sequence[jax.Array], gamma: jax.Array | float) -> list[jax.Array]:
        """`apply(chain, factorize(chain, H + damping), m)` of each tensor, of shape (rows, cols).

        Args:
          dampings: a scalar for each tensor, added to its diagonal.
          gamma: the tolerance of edge removal.
        """
        gamma = jnp.asarray(gamma, self._line.dtype)
        found: list[jax.Array] = _directions(self._chains, self._line, list(dampings), gamma)
        return found


# Each is compiled once for all steps of an optimizer that runs outside of `jax.jit`.
@functools.partial(jax.jit, static_argnums=0)
def _join(chains: tuple[Chain, ...], tensors: list[tuple[jax.Array, ...]]) -> jax.Array:
    """Bands and moment of all tensors, of shape (b + 2, entries).

    A window begins `b` entries before its block, for the sweep down, and ends `3 b` after it, for two eliminations. So
    the line has as many entries before the first block and after the last.
    """
    b, dtype = len(tensors[0]) - 2, tensors[0][0].dtype
    size, block = _sizes(chains, b)
    pieces = [jnp.stack([each.T.reshape(-1) for each in tensor]) for tensor in tensors]
    between = _identity(b, 2 * b, dtype)
    all_but_end = [_identity(b, 3 * b, dtype), *itertools.chain.from_iterable((piece, between) for piece in pieces)]
    return jnp.concatenate([*all_but_end, _identity(b, -size % block + 3 * b, dtype)], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _largest_rows(chains: tuple[Chain, ...], line: jax.Array) -> list[jax.Array]:
    b = len(line) - 2
    diagonal, *edges = jnp.abs(line[:-1])
    around = [jnp.maximum(edge[b:], edge[b - d : edge.size - d]) for d, edge in enumerate(edges, start=1)]
    row = diagonal[b:] + functools.reduce(jnp.maximum, around)
    return [jnp.max(row[start : start + chain.size]) for start, chain in _places(chains, b)]


@functools.partial(jax.jit, static_argnums=0)
def _directions(
    chains: tuple[Chain, ...], line: jax.Array, dampings: list[jax.Array], gamma: jax.Array
) -> list[jax.Array]:
    b, dtype = len(line) - 2, line.dtype
    size, block = _sizes(chains, b)
    between = jnp.zeros(2 * b, dtype)
    each = [jnp.full(chain.size, damping, dtype) for chain, damping in zip(chains, dampings, strict=True)]
    pieces = [jnp.zeros(3 * b, dtype), *itertools.chain.from_iterable((piece, between) for piece in each)]
    added = jnp.concatenate([*pieces, jnp.zeros(-size % block + 3 * b, dtype)])
    window = Window(reach=b)

    def add_block(index: jax.Array, directions: jax.Array) -> jax.Array:
        first, length = index * block, block + 4 * b
        diagonal, *edges, m = jax.lax.dynamic_slice_in_dim(line, first, length, axis=1)
        H = [diagonal + jax.lax.dynamic_slice_in_dim(added, first, length), *edges]
        u = apply(window, factorize(window, H, tolerance=gamma, is_damped=True), m)
        return jax.lax.dynamic_update_slice_in_dim(directions, u, first, axis=0)

    blocks = -(-size // block)
    whole = jax.lax.fori_loop(0, blocks, add_block, jnp.zeros(blocks * block, dtype))
    return [whole[start : start + each.size].reshape(each.cols, each.rows).T for start, each in _places(chains, b)]


def _sizes(chains: tuple[Chain, ...], b: int) -> tuple[int, int]:
    """The entries of all tensors and the gaps around them, and the entries of a block."""
    size = 2 * b + sum(chain.size + 2 * b for chain in chains)
    return size, min(_BLOCK, size)


def _places(chains: tuple[Chain, ...], b: int) -> list[tuple[int, Chain]]:
    """Each chain with its first entry, counted from the beginning of the first block."""
    starts = itertools.accumulate((chain.size + 2 * b for chain in chains), initial=2 * b)
    return list(zip(starts, chains, strict=False))


def _identity(b: int, size: int, dtype: jnp.dtype) -> jax.Array:
    """Bands of an identity matrix, and a zero moment: shape (b + 2, size)."""
    return jnp.concatenate([jnp.ones((1, size), dtype), jnp.zeros((b + 1, size), dtype)])
