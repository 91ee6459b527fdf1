"""QR by Householder reflections, with LAPACK's conventions of signs.

Each round of a loop does one reflection in a few passes over the matrix, so that the module does not grow with it.

References:
  Golub and Van Loan, Matrix Computations, 4th edition, sections 5.1, 5.2 and 5.4.2 (pivots).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.lax import linalg

from sonew_compiled.rules._arithmetic import (
    adjoint,
    column,
    contracted,
    entry,
    eye,
    first_largest,
    loop,
    outer,
    swapped,
)
from sonew_compiled.rules._rule import Rule, in_float32


def geqrf(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """LAPACK's `geqrf`: R in the upper triangle, the reflections' vectors below it, and their factors.

    Args:
      a: of shape (..., m, n).

    Returns:
      The factorization, of the shape of `a`, and `taus`, of shape (..., min(m, n)).
    """
    taus = jnp.zeros((*a.shape[:-2], min(a.shape[-2:])), a.dtype)
    return loop(taus.shape[-1], lambda k, carry: _reflected(k, *carry), (a, taus))


def geqp3(a: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`geqrf` with column pivoting by the largest remaining norm, and the columns' order, counted from 1."""
    n = a.shape[-1]
    order = jnp.broadcast_to(jnp.arange(1, n + 1, dtype=jnp.int32), (*a.shape[:-2], n))
    taus = jnp.zeros((*a.shape[:-2], min(a.shape[-2:])), a.dtype)

    def body(k: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        a, order, taus = carry
        rest = jnp.where(jnp.arange(a.shape[-2])[:, None] >= k, jnp.abs(a), 0)
        size = jnp.max(rest, axis=(-1, -2), keepdims=True)
        pivot = first_largest(jnp.sum(jnp.square(rest / jnp.where(size > 0, size, 1)), axis=-2), k)
        a, taus = _reflected(k, swapped(a, k, pivot[..., None]), taus)
        return a, swapped(order, k, pivot), taus

    return loop(taus.shape[-1], body, (a, order, taus))


def _reflected(k: jax.Array, a: jax.Array, taus: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Round `k`: column `k` becomes zero below the diagonal, and the same reflection acts on later columns."""
    rows, columns = jnp.arange(a.shape[-2]), jnp.arange(a.shape[-1])
    x = column(a, k)
    head = entry(x, k)
    tail = jnp.where(rows > k, x, 0)
    # The entries are scaled before they are squared, so that no square is infinite and not all are zero.
    size = jnp.maximum(jnp.max(jnp.abs(tail), axis=-1), jnp.abs(head))
    scale = jnp.where(size > 0, size, 1)
    below = jnp.sum(jnp.square(jnp.abs(tail / scale[..., None])), axis=-1)
    norm = scale * jnp.sqrt(jnp.square(jnp.abs(head / scale)) + below)
    beta = jnp.where(jnp.real(head) < 0, norm, -norm)
    # If all entries below are zero and the head is real, there is nothing to reflect.
    still = (below == 0) & (jnp.imag(head) == 0)
    tau = jnp.where(still, 0, (beta - head) / jnp.where(still, 1, beta))
    v = tail / jnp.where(still, 1, head - beta)[..., None] + (rows == k)
    beta = jnp.where(still, head, beta)
    reflected = a - outer(jnp.conj(tau)[..., None] * v, contracted(v, a))
    done = jnp.where(rows < k, x, jnp.where(rows == k, beta[..., None], v))
    a = jnp.where(columns < k, a, jnp.where(columns == k, done[..., None], reflected))
    return a, jnp.where(jnp.arange(taus.shape[-1]) == k, tau[..., None], taus)


def _applied(a: jax.Array, taus: jax.Array, c: jax.Array, *, inverse: bool = False) -> jax.Array:
    """`H_0 H_1 ... c`, or the product of the inverse with `c`.

    Args:
      a: of shape (..., m, n), with the vectors below the diagonal.
      taus: of shape (..., k), k <= n.
      c: of shape (..., m, p).
      inverse: whether to apply the conjugate reflections in reverse order.
    """
    rows = jnp.arange(a.shape[-2])
    count = taus.shape[-1]

    def body(index: jax.Array, c: jax.Array) -> jax.Array:
        k = index if inverse else count - 1 - index
        v = jnp.where(rows > k, column(a, k), 0) + (rows == k)
        tau = entry(taus, k)
        tau = jnp.conj(tau) if inverse else tau
        return c - outer(tau[..., None] * v, contracted(v, c))

    return loop(count, body, c)


def householder_product(a: jax.Array, taus: jax.Array) -> jax.Array:
    """The first columns of the reflections' product, of the shape of `a`."""
    return _applied(a, taus, eye(a))


def ormqr(a: jax.Array, taus: jax.Array, c: jax.Array, *, left: bool, transpose: bool) -> jax.Array:
    """`Q c`, `Q^H c`, `c Q` or `c Q^H`, without Q."""
    if left:
        return _applied(a, taus, c, inverse=transpose)
    return adjoint(_applied(a, taus, adjoint(c), inverse=not transpose))


def qr(a: jax.Array, *, pivoting: bool, full_matrices: bool, **_: Any) -> tuple[jax.Array, ...]:
    """Q and R and, with `pivoting`, the index in `a` of each of their columns."""
    m, n = a.shape[-2:]
    r, *order, taus = geqp3(a) if pivoting else geqrf(a)
    if full_matrices and m > n:
        r = jnp.concatenate([r, jnp.zeros((*a.shape[:-1], m - n), a.dtype)], axis=-1)
    k = m if full_matrices else min(m, n)
    return householder_product(r[..., :k], taus), jnp.triu(r[..., :k, :n]), *(each - 1 for each in order)


def _primitive_of_geqrf() -> Primitive:
    """The primitive itself, from a function that uses it, since JAX exports only that."""
    matrix = jax.ShapeDtypeStruct((1, 1), jnp.float32)
    with jax.disable_jit(False):  # this module may be imported under any of the user's settings
        (call,) = jax.make_jaxpr(lambda a: jnp.linalg.qr(a, mode="raw"))(matrix).eqns
    primitive: Primitive = call.params["jaxpr"].eqns[0].primitive
    assert primitive.name == "geqrf", primitive
    return primitive


RULES: tuple[Rule, ...] = (
    in_float32(linalg.qr_p, qr),
    in_float32(_primitive_of_geqrf(), geqrf),
    in_float32(linalg.householder_product_p, householder_product),
    in_float32(linalg.ormqr_p, ormqr),
)
