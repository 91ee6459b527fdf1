"""The parts of loops over matrices: reads of a row, a column or the diagonal, sums of products, swaps.

Matrices are (..., m, n), vectors (..., m). Rows and columns are written by masks, in the pass over the matrix that each
round makes anyway, because IREE 3.13 updates slices in place even if something else still reads the matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

_Carry = TypeVar("_Carry")


def loop(count: int, body: Callable[[jax.Array, _Carry], _Carry], start: _Carry) -> _Carry:
    """`body(count - 1, ... body(1, body(0, start)))`, as one loop; `start` itself if it has no elements."""
    if not count or not all(x.size for x in jax.tree.leaves(start)):
        return start
    result: _Carry = jax.lax.fori_loop(0, count, body, start)
    return result


def column(a: jax.Array, k: jax.Array) -> jax.Array:
    """Column `k` of matrices (..., m, n); `k` is a scalar."""
    return jnp.asarray(jax.lax.dynamic_index_in_dim(a, k, axis=a.ndim - 1, keepdims=False))


def row(a: jax.Array, k: jax.Array) -> jax.Array:
    """Row `k` of matrices (..., m, n); `k` is a scalar."""
    return jnp.asarray(jax.lax.dynamic_index_in_dim(a, k, axis=a.ndim - 2, keepdims=False))


def entry(x: jax.Array, k: jax.Array) -> jax.Array:
    """Entry `k` of vectors (..., m); `k` is a scalar or an integer array of the batch's shape (...)."""
    return jnp.sum(jnp.where(jnp.arange(x.shape[-1]) == k[..., None], x, 0), axis=-1, dtype=x.dtype)


def diagonal(a: jax.Array) -> jax.Array:
    """The diagonal of square matrices."""
    return jnp.sum(jnp.where(jnp.eye(a.shape[-1], dtype=bool), a, 0), axis=-1)


def contracted(v: jax.Array, a: jax.Array) -> jax.Array:
    """`v^H a` for vectors (..., m) and matrices (..., m, n), of shape (..., n)."""
    return jnp.sum(jnp.conj(v)[..., None] * a, axis=-2)


def outer(v: jax.Array, w: jax.Array) -> jax.Array:
    """`v w^T`."""
    return v[..., :, None] * w[..., None, :]


def swapped(x: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
    """Vectors with entries `i` and `j` exchanged; each index is a scalar or an integer array of the batch's shape."""
    where = jnp.arange(x.shape[-1])
    i, j = jnp.broadcast_arrays(i, j)
    return jnp.where(
        where == i[..., None], entry(x, j)[..., None], jnp.where(where == j[..., None], entry(x, i)[..., None], x)
    )


def swapped_rows(a: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
    """Matrices with rows `i` and `j` exchanged; the indices are as in `swapped`."""
    return jnp.swapaxes(swapped(jnp.swapaxes(a, -1, -2), i[..., None], j[..., None]), -1, -2)


def first_largest(x: jax.Array, k: jax.Array) -> jax.Array:
    """The index of the largest entry of real vectors from `k` on, the first of equal ones; `k` if all are NaN."""
    where = jnp.arange(x.shape[-1])
    x = jnp.where(where >= k, x, -jnp.inf)
    found = jnp.where((x == jnp.max(x, axis=-1, keepdims=True)) & (where >= k), where, x.shape[-1])
    first = jnp.min(found, axis=-1)
    return jnp.where(first == x.shape[-1], k, first).astype(jnp.int32)


def eye(a: jax.Array) -> jax.Array:
    """Unit matrices of the shape and dtype of `a`, which need not be square."""
    m, n = a.shape[-2:]
    return jnp.broadcast_to(jnp.eye(m, n, dtype=a.dtype), a.shape)


def adjoint(a: jax.Array) -> jax.Array:
    """`a^H`."""
    return jnp.conj(jnp.swapaxes(a, -1, -2))
