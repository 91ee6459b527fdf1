"""The Cholesky factorization, and its update by a vector.

References:
  Golub and Van Loan, Matrix Computations, 4th edition, sections 4.2 and 6.5.4.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import linalg

from sonew_compiled.rules._arithmetic import column, diagonal, entry, loop, outer, row
from sonew_compiled.rules._rule import Rule, in_float32


def cholesky(a: jax.Array) -> jax.Array:
    """The lower triangular L of `a = L L^H`, one column a round; all NaN if `a` is not positive definite.

    Args:
      a: of shape (..., n, n); the upper triangle is not read.
    """
    where = jnp.arange(a.shape[-1])

    def body(k: jax.Array, a: jax.Array) -> jax.Array:
        x = column(a, k)
        root = jnp.sqrt(jnp.real(entry(x, k)))
        below = jnp.where(where > k, x / root[..., None], 0)
        done = jnp.where(where == k, root[..., None], below)
        reduced = a - outer(below, jnp.conj(below))
        return jnp.where(where > k, reduced, jnp.where(where == k, done[..., None], a))

    factor = loop(a.shape[-1], body, a)
    # A pivot that was negative, zero or NaN has left its root on the diagonal.
    positive = jnp.all(jnp.real(diagonal(factor)) > 0, axis=-1)
    return jnp.where(positive[..., None, None], jnp.tril(factor), jnp.nan)


def cholesky_update(r: jax.Array, w: jax.Array) -> jax.Array:
    """The upper triangular factor of `r^T r + w w^T`, by one rotation a round.

    Args:
      r: upper triangular, of shape (n, n).
      w: of shape (n,).
    """
    n = w.shape[-1]

    def body(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        r, w = carry
        above = row(r, k)
        x, y = entry(above, k), entry(w, k)
        scale = jnp.maximum(jnp.abs(x), jnp.abs(y))
        x, y = (each / jnp.where(scale > 0, scale, 1) for each in (x, y))
        norm = jnp.sqrt(x * x + y * y)
        # If there is nothing to add, the diagonal keeps its sign.
        cosine = jnp.where(y == 0, 1, x / jnp.where(y == 0, 1, norm))
        sine = jnp.where(y == 0, 0, y / jnp.where(y == 0, 1, norm))
        r = jnp.where((jnp.arange(n) == k)[:, None], cosine * above + sine * w, r)
        return r, cosine * w - sine * above

    return loop(n, body, (r, w))[0]


RULES: tuple[Rule, ...] = (
    in_float32(linalg.cholesky_p, cholesky),
    in_float32(linalg.cholesky_update_p, cholesky_update),
)
