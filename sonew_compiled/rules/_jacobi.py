"""Eigenvalues of symmetric matrices and singular values, by Jacobi rotations.

A round rotates n / 2 disjoint pairs of columns at once: the first of the left half with the first of the right half,
and so on. Between rounds the columns move like the players of a round-robin tournament, by slices alone. After a sweep
of n - 1 rounds each pair has met, and all columns are back in their places.

References:
  Golub and Van Loan, Matrix Computations, 4th edition, sections 8.5 and 8.6.3.
  Brent and Luk, The solution of singular-value and symmetric eigenvalue problems on multiprocessor arrays, 1985.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import Precision, linalg

from sonew_compiled.errors import UsageError
from sonew_compiled.rules._arithmetic import diagonal, loop
from sonew_compiled.rules._householder import qr
from sonew_compiled.rules._rule import Rule, in_float32


def eigh(
    a: jax.Array, *, lower: bool, subset_by_index: tuple[int, int] | None = None, **_: Any
) -> tuple[jax.Array, jax.Array]:
    """Eigenvectors as columns, each up to its sign, and the eigenvalues in ascending order.

    Args:
      a: real, of shape (..., n, n). The results of a matrix with an entry that is not finite are NaN.
      lower: whether the lower triangle is read, or the upper one.

    Raises:
      UsageError: the matrix is complex, or `subset_by_index` asks for some eigenvalues only.
    """
    n = a.shape[-1]
    _check("eigh", a, subset_by_index, n)
    triangle = jnp.tril(a) if lower else jnp.triu(a)
    strict = jnp.tril(a, -1) if lower else jnp.triu(a, 1)
    a = triangle + jnp.swapaxes(strict, -1, -2)
    finite, scale = _scale(a)

    def body(_: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        a, vectors = carry
        left, right = _halves(a)
        half = left.shape[-1]
        blocks = (left[..., :half, :], right[..., :half, :], right[..., half:, :])
        rotation = _rotation(*map(diagonal, blocks))
        a = jnp.swapaxes(_rotated(a, *rotation), -1, -2)
        a = _rotated(a, *rotation)
        return _moved_on(jnp.swapaxes(_moved_on(a), -1, -2)), _moved_on(_rotated(vectors, *rotation))

    values, vectors = a / scale, jnp.broadcast_to(jnp.eye(n, dtype=a.dtype), a.shape)
    odd = n % 2
    padding = [(0, 0)] * (a.ndim - 2)
    start = (jnp.pad(values, [*padding, (0, odd), (0, odd)]), jnp.pad(vectors, [*padding, (0, 0), (0, odd)]))
    rotated, vectors = loop(_rounds(n), body, start)
    values = diagonal(rotated)[..., :n]
    order = _order(values)
    values = _put(values, order) * scale[..., 0]
    vectors = _put_columns(vectors[..., :n], order)
    return jnp.where(finite, vectors, jnp.nan), jnp.where(finite[..., 0], values, jnp.nan)


def svd(
    a: jax.Array, *, full_matrices: bool, compute_uv: bool, subset_by_index: tuple[int, int] | None = None, **_: Any
) -> tuple[jax.Array, ...]:
    """Singular values in descending order and, with `compute_uv`, U and V^H, each pair of vectors up to its sign.

    Args:
      a: real, of shape (..., m, n). The results of a matrix with an entry that is not finite are NaN.

    Raises:
      UsageError: the matrix is complex, or `subset_by_index` asks for some singular values only.
    """
    m, n = a.shape[-2:]
    _check("svd", a, subset_by_index, min(m, n))
    if m < n:
        s, *vectors = svd(jnp.swapaxes(a, -1, -2), full_matrices=full_matrices, compute_uv=compute_uv)
        return s, *(jnp.swapaxes(each, -1, -2) for each in reversed(vectors))
    finite, scale = _scale(a)
    q, r, columns = qr(a / scale, pivoting=True, full_matrices=full_matrices)

    def body(_: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        w, v = carry
        left, right = _halves(w)
        rotation = _rotation(*(jnp.sum(x * y, axis=-2) for x, y in ((left, left), (left, right), (right, right))))
        return _moved_on(_rotated(w, *rotation)), _moved_on(_rotated(v, *rotation))

    # The rows of a triangular factor with falling diagonal are nearly orthogonal, so a few sweeps suffice for any
    # condition number.
    w = jnp.swapaxes(r[..., :n, :], -1, -2)
    v = jnp.broadcast_to(jnp.eye(n, dtype=a.dtype), w.shape)
    padding = [*[(0, 0)] * (a.ndim - 1), (0, n % 2)]
    w, v = (each[..., :n] for each in loop(_rounds(n), body, (jnp.pad(w, padding), jnp.pad(v, padding))))
    values = jnp.sqrt(jnp.sum(w * w, axis=-2))
    order = _order(-values)
    values = jnp.where(finite[..., 0], _put(values, order) * scale[..., 0], jnp.nan)
    if not compute_uv:
        return (values,)
    # QR normalises the columns, and not a division by the singular values, since it completes the basis if one is zero.
    basis, r = qr(_put_columns(w, order), pivoting=False, full_matrices=False)
    basis = jnp.where(diagonal(r)[..., None, :] < 0, -basis, basis)
    u = jnp.matmul(q[..., :n], _put_columns(v, order), precision=Precision.HIGHEST)
    u = jnp.concatenate([u, q[..., n:]], axis=-1)
    vh = _put_columns(jnp.swapaxes(basis, -1, -2), columns)
    return values, jnp.where(finite, u, jnp.nan), jnp.where(finite, vh, jnp.nan)


def _check(name: str, a: jax.Array, subset: tuple[int, int] | None, count: int) -> None:
    if jnp.issubdtype(a.dtype, jnp.complexfloating):
        raise UsageError(
            f"{name} of dtype {a.dtype} has no lowering; give a real matrix, such as [[re, -im], [im, re]]"
        )
    if subset not in (None, (0, count)):
        raise UsageError(f"{name} with subset_by_index {subset} has no lowering; compute all and slice the result")


def _scale(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether a matrix is finite, and the factor that makes its largest entry 1; both of shape (..., 1, 1)."""
    size = jnp.max(jnp.abs(a), axis=(-1, -2), keepdims=True, initial=0)
    # NaN compares false.
    finite = size < jnp.inf
    return finite, jnp.where(finite & (size > 0), size, 1)


def _rounds(n: int) -> int:
    """The rounds that suffice for float32. Convergence is quadratic in the end, and later for larger matrices."""
    size = n + n % 2
    return (6 + size.bit_length() // 2) * (size - 1) if n > 1 else 0


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def _rotation(first: jax.Array, cross: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of the smaller angle that makes `[[first, cross], [cross, second]]` diagonal."""
    gap = second - first
    below = jnp.abs(gap) + jnp.sqrt(gap * gap + 4 * cross * cross)
    tangent = jnp.where(below > 0, 2 * cross / jnp.where(below > 0, below, 1), 0) * jnp.where(gap < 0, -1, 1)
    cosine = 1 / jnp.sqrt(1 + tangent * tangent)
    return cosine, tangent * cosine


def _rotated(x: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    left, right = _halves(x)
    c, s = cosine[..., None, :], sine[..., None, :]
    return jnp.concatenate([c * left - s * right, s * left + c * right], axis=-1)


def _moved_on(x: jax.Array) -> jax.Array:
    """The columns after a move of the tournament: all but the first go one place further."""
    left, right = _halves(x)
    if left.shape[-1] == 1:
        return x
    parts = (left[..., :1], right[..., :1], left[..., 1:-1], right[..., 1:], left[..., -1:])
    return jnp.concatenate(parts, axis=-1)


def _order(x: jax.Array) -> jax.Array:
    """The place of each entry in ascending order, found without a sort; equal entries keep their order."""
    where = jnp.arange(x.shape[-1])
    mine, other = x[..., :, None], x[..., None, :]
    return jnp.sum((other < mine) | ((other == mine) & (where[None, :] < where[:, None])), axis=-1)


def _put(x: jax.Array, order: jax.Array) -> jax.Array:
    """The entries of vectors, moved to the places in `order`."""
    return jnp.sum(jnp.where(order[..., None, :] == jnp.arange(x.shape[-1])[:, None], x[..., None, :], 0), axis=-1)


def _put_columns(x: jax.Array, order: jax.Array) -> jax.Array:
    """The columns of `x`, moved to the places in `order`."""
    # A product with a permutation would round on targets whose products do.
    return _put(x, order[..., None, :])


RULES: tuple[Rule, ...] = (in_float32(linalg.eigh_p, eigh), in_float32(linalg.svd_p, svd))
