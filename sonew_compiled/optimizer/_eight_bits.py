r"""SONew's state of one tensor in 8 bits a number: momentum, diagonal, and a correlation for each edge of the chain.

An edge is stored as `r_j = H[j+1, j] / sqrt(H[j, j] H[j+1, j+1])`, rounded to `c / 127`. It is read back as
`c / 127 * sqrt(h_j h_{j+1})`, where `h` is the diagonal as it is read back. Since `|c| <= 127`, no two by two minor
`h_j h_{j+1} (1 - (c / 127)^2)` is negative, however the diagonal and the edge are rounded.

The noise of the rounding is `mix(mix(index) ^ mix(mix(step + 0x9e3779b9) ^ tensor)) >> 8`, over 2^24. Of leaf `k` of
the parameters, the momentum is tensor `3 k`, the diagonal `3 k + 1`, and the edges are `3 k + 2`.

**X is positive definite before any edge is removed.** Let `G` be the statistics as they are read back. Those of the
step are `H = b2 G + (1 - b2) P(g g^T) + d I`, with a damping `d > 0`. The window of two neighbours in `G` has no
negative minor and no negative diagonal entry, so it is positive semidefinite. So is the window of `g g^T`, and with `d
I` the sum is positive definite. Its Schur complement `s_j` is at least `d`, and a chain has no other windows.

**GAMMA is 2 / 127.** Let `r` be an edge's correlation before it was rounded, and `r' = c / 127`; they differ by less
than `D = 1 / 127`. With `r` in place of `r'`, the edge of `H` changes by less than `b2 D sqrt(h_j h_{j+1})`, which is
at most `D sqrt(H[j, j] H[j+1, j+1])`. So the correlations `p` and `p'` that `H` has with `r` and with `r'` differ by
less than `D`. Both are in [-1, 1], and `s_j = H[j, j] (1 - p^2)` changes by `H[j, j] |p' - p| |p' + p| < 2 D H[j, j]`.
A Schur complement of at most `2 D H[j, j]` may thus be the rounding's alone, and its edges are removed. Where edges are
kept, `1 / s_j` is below `1 / (GAMMA H[j, j])`.

**Wider bands are refused.** Three neighbours with the correlations r, r and 2 r^2 - 1 are singular, and a smaller last
one makes them indefinite. Nothing like `|c| <= 127` bounds the sum of the roundings of many steps.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from sonew_compiled.optimizer._chain import Chain
from sonew_compiled.optimizer._counter_noise import tensor_key, uniform_noise
from sonew_compiled.optimizer._precision import in_float32
from sonew_compiled.optimizer._quantize import Quantized, dequantize, quantize, zeros

_LARGEST_CODE = 127

GAMMA = 2 / _LARGEST_CODE
"""The share of the diagonal by which one rounding of an edge can change its Schur complement."""

# The momentum, the diagonal and the edges of a leaf are numbered one after the other.
_TENSORS_OF_A_LEAF = 3


def empty_state(leaf: jax.Array, edges: int) -> tuple[Quantized, tuple[Any, ...]]:
    """The state of zero momentum and statistics: `m`, and the tuple of the diagonal and up to one band of edges."""
    return zeros(leaf), (zeros(leaf), *(jnp.zeros(leaf.shape, jnp.int8) for _ in range(edges)))


def read_state(
    chain: Chain, shape: tuple[int, ...], m: Quantized, bands: tuple[Any, ...]
) -> tuple[jax.Array, list[jax.Array]]:
    """The momentum and the bands of `H`, in the chain's layout."""
    diagonal, *edges = bands
    h = chain.view(dequantize(diagonal, shape, signed=False))
    root = jnp.sqrt(h)
    read = [_edge(chain.view(codes), root, chain.shift(root, d)) for d, codes in enumerate(edges, start=1)]
    return chain.view(dequantize(m, shape, signed=True)), [h, *read]


def write_state(
    chain: Chain, shape: tuple[int, ...], m: jax.Array, H: list[jax.Array], *, step: jax.Array, leaf: int
) -> tuple[Quantized, tuple[Any, ...]]:
    """The state in 8 bits, each number rounded stochastically.

    Args:
      chain: the chain.
      shape: the shape of the tensor.
      m: momentum in the chain's layout, like `H`.
      H: the diagonal, and up to one band of edges.
      step: the steps before this one, from which the noise is made.
      leaf: the tensor's number among the parameters, likewise.
    """
    keys = [tensor_key(step, _TENSORS_OF_A_LEAF * leaf + part) for part in range(len(H) + 1)]
    diagonal, *edges = H
    root = jnp.sqrt(diagonal)
    codes = [
        _codes(edge, root, chain.shift(root, d), key).reshape(shape)
        for d, (edge, key) in enumerate(zip(edges, keys[2:], strict=True), start=1)
    ]
    stored = quantize(diagonal.reshape(shape), signed=False, key=keys[1])
    return quantize(m.reshape(shape), signed=True, key=keys[0]), (stored, *codes)


@in_float32
def _edge(codes: jax.Array, root: jax.Array, next_root: jax.Array) -> jax.Array:
    return codes.astype(root.dtype) * (1 / _LARGEST_CODE) * root * next_root


@in_float32
def _codes(edge: jax.Array, root: jax.Array, next_root: jax.Array, key: jax.Array) -> jax.Array:
    # The product of the diagonal's entries could underflow or overflow where that of their roots does not.
    lengths = root * next_root
    # A NaN in the diagonal compares false, and makes the edge NaN anyway when it is read.
    r = jnp.where(lengths > 0, jnp.clip(edge / lengths, -1, 1), 0) * _LARGEST_CODE
    lower = jnp.floor(r)
    up = uniform_noise(key, r.shape, r.dtype) < r - lower
    return (lower + jnp.where(up, 1, 0).astype(r.dtype)).astype(jnp.int8)
