"""Tridiagonal systems, by elimination with LAPACK's pivots.

References:
  Golub and Van Loan, Matrix Computations, 4th edition, section 4.3.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import linalg

from sonew_compiled.errors import UsageError
from sonew_compiled.rules._rule import Rule, in_float32

_Row = tuple[jax.Array, jax.Array, jax.Array]


def tridiagonal_solve(
    dl: jax.Array, d: jax.Array, du: jax.Array, b: jax.Array, *, perturb_singular: bool = False
) -> jax.Array:
    """X of `A X = b`; NaN if a pivot is zero.

    Args:
      dl, d, du: the diagonals, of shape (..., n): `dl[..., 0]` and `du[..., -1]` are not read.
      b: of shape (..., n, p).

    Raises:
      UsageError: `perturb_singular` is set.
    """
    if perturb_singular:
        raise UsageError("tridiagonal_solve with perturb_singular has no lowering; add to the diagonal instead")
    if not b.size:
        return b
    first = jnp.arange(d.shape[-1]) == 0
    dl, du = jnp.where(first, 0, dl), jnp.where(first[::-1], 0, du)
    # The loops go along the first axis; the diagonals get an axis of length 1 in place of the right-hand sides.
    low, main, up = (jnp.moveaxis(each[..., None], -2, 0) for each in (dl, d, du))
    right = jnp.moveaxis(b, -2, 0)

    def eliminate(above: _Row, row: tuple[jax.Array, ...]) -> tuple[_Row, tuple[jax.Array, ...]]:
        """Eliminate between the reduced row above and the next row: return the rest of one, and the pivot row."""
        head, after, value = above
        low, main, up, right = row
        exchanged = jnp.abs(head) < jnp.abs(low)
        pivot, other = jnp.where(exchanged, low, head), jnp.where(exchanged, head, low)
        factor = other / jnp.where(pivot == 0, 1, pivot)
        beside, left = jnp.where(exchanged, main, after), jnp.where(exchanged, after, main)
        beyond, rest = jnp.where(exchanged, up, 0), jnp.where(exchanged, 0, up)
        found, kept = jnp.where(exchanged, right, value), jnp.where(exchanged, value, right)
        reduced = (left - factor * beside, rest - factor * beyond, kept - factor * found)
        return reduced, (pivot, beside, beyond, found)

    start = (main[0], up[0], right[0])
    (head, _, value), rows = jax.lax.scan(eliminate, start, (low[1:], main[1:], up[1:], right[1:]))
    last = value / head

    def substitute(known: tuple[jax.Array, jax.Array], row: tuple[jax.Array, ...]) -> tuple[Any, jax.Array]:
        after, beyond = known
        pivot, up, second, right = row
        x = (right - up * after - second * beyond) / pivot
        return (x, after), x

    _, solved = jax.lax.scan(substitute, (last, jnp.zeros_like(last)), rows, reverse=True)
    regular = jnp.all(rows[0] != 0, axis=0) & (head != 0)
    return jnp.moveaxis(jnp.where(regular, jnp.concatenate([solved, last[None]]), jnp.nan), 0, -2)


RULES: tuple[Rule, ...] = (in_float32(linalg.tridiagonal_solve_p, tridiagonal_solve),)
