"""LU with LAPACK's pivots: the first of the largest entries of each column.

References:
  Golub and Van Loan, Matrix Computations, 4th edition, section 3.4.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import linalg

from sonew_compiled.rules._arithmetic import column, entry, first_largest, loop, outer, row, swapped, swapped_rows
from sonew_compiled.rules._rule import Rule, in_float32, rule


def lu(a: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """L below the diagonal and U on and above it, one column a round.

    Args:
      a: of shape (..., m, n).

    Returns:
      The factors in one matrix of the shape of `a`; the pivots, int32 of shape (..., min(m, n)); and for each row of
      `L U` the index of its row in `a`, int32 of shape (..., m).
    """
    m, n = a.shape[-2:]
    count = min(m, n)
    rows, columns = jnp.arange(m), jnp.arange(n)

    def body(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        a, pivots = carry
        x = column(a, k)
        pivot = first_largest(jnp.abs(jnp.real(x)) + jnp.abs(jnp.imag(x)), k)
        a = swapped_rows(a, k, pivot)
        x, top = column(a, k), row(a, k)
        divisor = entry(x, k)
        factors = jnp.where(rows > k, x / jnp.where(divisor == 0, 1, divisor)[..., None], x)
        reduced = a - outer(factors, top)
        below = (rows > k)[:, None]
        a = jnp.where(below & (columns > k), reduced, jnp.where(below & (columns == k), factors[..., None], a))
        return a, jnp.where(jnp.arange(count) == k, pivot[..., None], pivots)

    a, pivots = loop(count, body, (a, jnp.zeros((*a.shape[:-2], count), jnp.int32)))
    return a, pivots, lu_pivots_to_permutation(pivots, permutation_size=m)


def lu_pivots_to_permutation(pivots: jax.Array, *, permutation_size: int) -> jax.Array:
    """The permutation of rows after exchanging row `k` and row `pivots[k]` for each `k` in turn."""
    order = jnp.broadcast_to(jnp.arange(permutation_size, dtype=jnp.int32), (*pivots.shape[:-1], permutation_size))
    return loop(pivots.shape[-1], lambda k, order: swapped(order, k, entry(pivots, k)), order)


RULES: tuple[Rule, ...] = (
    in_float32(linalg.lu_p, lu),
    rule(linalg.lu_pivots_to_permutation_p, lu_pivots_to_permutation, name="lu_pivots_to_permutation"),
)
