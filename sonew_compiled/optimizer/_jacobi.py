"""Eigenvalues and eigenvectors of small symmetric matrices, without LAPACK."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sonew_compiled.optimizer._precision import in_float32

_SWEEPS = 8


@in_float32
def symmetric_eigen(matrices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues, in no order, and eigenvectors, by 8 sweeps of parallel Jacobi rotations.

    Each round rotates disjoint pairs of rows and columns so that the entry between the two becomes zero. The rounds of
    a sweep cover all pairs, as in a round-robin tournament.

    Args:
      matrices: symmetric, of shape (..., n, n) and float32 or wider; n up to some tens.

    Returns:
      The values, of shape (..., n), and the vectors as columns, of shape (..., n, n).

    References:
      Golub and Van Loan, Matrix Computations, 4th edition, section 8.5 (8.5.5 for the parallel ordering).
    """
    count = matrices.shape[-1]
    if count == 1:
        return matrices[..., 0], jnp.ones_like(matrices)
    size = count + count % 2
    padding = [(0, 0)] * (matrices.ndim - 2) + [(0, size - count)] * 2
    pairings = jnp.asarray(_tournament(size))
    on_diagonal = jnp.eye(size, dtype=bool)
    identity = jnp.eye(size, dtype=matrices.dtype)

    def pick(where: jax.Array, x: jax.Array) -> jax.Array:
        # A product with a mask would not do: IREE 3.13 turns it into a matrix product, and fails on that.
        return jnp.sum(jnp.where(where, x, 0), axis=-1)

    def body(index: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        a, vectors = carry
        pairing = jax.lax.dynamic_index_in_dim(pairings, index % (size - 1), keepdims=False)

        def partner(x: jax.Array) -> jax.Array:
            return pick(pairing, jnp.broadcast_to(x[..., None, :], a.shape))

        # The sign of a rotation must be consistent between both ends of a pair.
        side = jnp.where(jnp.any(pairing & jnp.triu(jnp.ones_like(pairing)), axis=-1), 1, -1).astype(a.dtype)
        diagonal = pick(on_diagonal, a)
        entry = pick(pairing, a)
        # The entry must be the same to the last bit at both ends, even if rounding has made `a` asymmetric.
        entry = (entry + partner(entry)) / 2
        gap = side * (partner(diagonal) - diagonal)
        # tan of the smaller angle: the root of t^2 + t gap / entry - 1 = 0, written without division by the entry.
        sign = jnp.where(gap < 0, -1, 1).astype(a.dtype)
        below = jnp.abs(gap) + jnp.sqrt(gap * gap + 4 * entry * entry)
        tangent = jnp.where(below > 0, sign * 2 * entry / jnp.where(below > 0, below, 1), 0)
        cosine = 1 / jnp.sqrt(1 + tangent * tangent)
        sine = side * tangent * cosine

        def rotated(x: jax.Array) -> jax.Array:
            """`x R`, column by column: IREE 3.13 crashes on products of many tiny matrices for ROCm."""
            swapped = pick(pairing, jnp.broadcast_to(x[..., None, :], (*x.shape, size)))
            return x * cosine[..., None, :] - swapped * sine[..., None, :]

        return rotated(jnp.swapaxes(rotated(a), -1, -2)), rotated(vectors)

    start = jnp.pad(matrices, padding)
    a, vectors = jax.lax.fori_loop(0, _SWEEPS * (size - 1), body, (start, jnp.broadcast_to(identity, start.shape)))
    return pick(on_diagonal, a)[..., :count], vectors[..., :count, :count]


def _tournament(size: int) -> np.ndarray:
    """For each of the `size - 1` rounds, the symmetric permutation matrix that swaps the partners."""
    rounds = np.zeros((size - 1, size, size), bool)
    for each in range(size - 1):
        seats = [0, *((i + each) % (size - 1) + 1 for i in range(size - 1))]
        for i in range(size // 2):
            a, b = seats[i], seats[size - 1 - i]
            rounds[each, a, b] = rounds[each, b, a] = True
    return rounds
