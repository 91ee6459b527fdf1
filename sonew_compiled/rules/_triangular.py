"""Triangular systems, by substitution.

Each round of a loop finds one unknown for all right-hand sides at once.

References:
  Golub and Van Loan, Matrix Computations, 4th edition, section 3.1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import linalg

from sonew_compiled.rules._arithmetic import column, entry, loop, outer, row
from sonew_compiled.rules._rule import Rule, in_float32


def triangular_solve(
    a: jax.Array,
    b: jax.Array,
    *,
    left_side: bool,
    lower: bool,
    transpose_a: bool,
    conjugate_a: bool,
    unit_diagonal: bool,
) -> jax.Array:
    """X of `op(a) X = b`, or of `X op(a) = b`.

    Args:
      a: of shape (..., n, n); the other triangle is not read.
      b: of shape (..., n, p), or (..., p, n) if `a` is on the right.
      left_side: whether `a` is on the left.
      lower: whether `a` is lower triangular.
      transpose_a, conjugate_a: whether `op` transposes, and whether it conjugates.
      unit_diagonal: whether the diagonal counts as ones.
    """
    if conjugate_a:
        a = jnp.conj(a)
    if transpose_a != (not left_side):
        a, lower = jnp.swapaxes(a, -1, -2), not lower
    if not left_side:
        b = jnp.swapaxes(b, -1, -2)
    n = a.shape[-1]
    rows = jnp.arange(n)

    def body(index: jax.Array, x: jax.Array) -> jax.Array:
        k = index if lower else n - 1 - index
        coefficients = column(a, k)
        found = row(x, k)
        if not unit_diagonal:
            found = found / entry(coefficients, k)[..., None]
        left = (rows > k if lower else rows < k)[:, None]
        reduced = x - outer(jnp.where(left[:, 0], coefficients, 0), found)
        return jnp.where((rows == k)[:, None], found[..., None, :], jnp.where(left, reduced, x))

    x = loop(n, body, b)
    return x if left_side else jnp.swapaxes(x, -1, -2)


RULES: tuple[Rule, ...] = (in_float32(linalg.triangular_solve_p, triangular_solve),)
