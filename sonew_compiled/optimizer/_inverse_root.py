"""Inverse p-th roots of positive semidefinite matrices, by products of matrices alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sonew_compiled.optimizer._precision import in_float32, statistics_epsilon
from sonew_compiled.optimizer._runtime_number import RuntimeNumber

_LAST_ITERATIONS = 6
# A root is taken if this is what is left of the largest entry of `M - I`.
_TOLERANCE = 0.1


def refreshed_root(matrix: jax.Array, previous: jax.Array, p: int, eps: float | RuntimeNumber) -> jax.Array:
    """`inverse_root` with the damping that the statistics need, or the previous root where it did not converge."""
    least = statistics_epsilon(matrix.dtype)
    if isinstance(eps, RuntimeNumber):  # which may be as small as the least
        root, error = inverse_root(matrix, p, jnp.maximum(eps.traced, least), least=least)
    else:
        root, error = inverse_root(matrix, p, max(eps, least))
    return jnp.where(error < _TOLERANCE, root.astype(previous.dtype), previous)


def inverse_root(
    matrix: jax.Array, p: int, ridge: float | jax.Array, *, least: float | None = None
) -> tuple[jax.Array, jax.Array]:
    r"""`(A + ridge * ||A||_F I)^{-1/p}` of a symmetric positive semidefinite matrix, by coupled Newton iteration.

    With `A'` the damped matrix over `||A||_F`, `z = (1 + p) / (2 (1 + ridge))`, `X_0 = z^{1/p} I` and `M_0 = z A'`:

    .. math::
      T_k = ((p + 1) I - M_k) / p, \quad X_{k+1} = X_k T_k, \quad M_{k+1} = T_k^p M_k

    `M_k` goes to the identity and `X_k` to the root: slowly from small eigenvalues, which grow by `((p + 1) / p)^p` a
    step, then quadratically. The number of steps is what the damping asks for: 21 for a fourth root and 1e-6.

    Args:
      matrix: `A`, of shape (n, n).
      p: the root, 1 or more.
      ridge: damping relative to the Frobenius norm; the condition number is at most `1 + 1 / ridge`.
      least: what `ridge` is at least, where that is a traced scalar.

    Returns:
      The root, of shape (n, n), and the largest entry of `|M - I|`, both in at least float32. The error is NaN or large
      where the iteration did not converge, as for a matrix with an eigenvalue below minus the damping.

    References:
      Guo and Higham, A Schur-Newton Method for the Matrix p-th Root and its Inverse, SIAM J. Matrix Anal. Appl. 2006,
      equation 1.6; as in Anil et al. 2020, arXiv 2002.09018, algorithm 3 of the appendix.
    """
    wide = jnp.promote_types(matrix.dtype, jnp.float32)
    count = _iterations(p, float(ridge) if least is None else least)
    return _of_order(p, count)(matrix.astype(wide), ridge)


@functools.cache
def _of_order(p: int, count: int) -> Callable[[jax.Array, float | jax.Array], tuple[jax.Array, jax.Array]]:
    # A function a root: matrices of one shape share it in the traced module.
    def inverse_root(a: jax.Array, ridge: float | jax.Array) -> tuple[jax.Array, jax.Array]:
        identity = jnp.eye(a.shape[0], dtype=a.dtype)
        norm = jnp.sqrt(jnp.sum(jnp.square(a)))
        norm = jnp.where(norm > 0, norm, jnp.ones_like(norm))
        z = (1 + p) / (2 * (1 + jnp.asarray(ridge, a.dtype)))

        x, m = identity * z ** (1 / p), z * (a / norm + jnp.asarray(ridge, a.dtype) * identity)
        # No loop: in a branch, IREE 3.13 does not give back the memory of its rounds, nor compile one that ends by a
        # comparison.
        for _ in range(count):
            t = ((p + 1) * identity - m) / p
            x, m = x @ t, _power(t, p) @ m
        return x * norm ** (-1 / p), jnp.max(jnp.abs(m - identity))

    return in_float32(inverse_root)


def _iterations(p: int, ridge: float) -> int:
    """Steps until the smallest eigenvalue that there can be is near 1, and then until it is 1 in float32."""
    smallest = (1 + p) * ridge / (2 * (1 + ridge))
    return math.ceil(math.log(1 / min(smallest, 1)) / (p * math.log1p(1 / p))) + _LAST_ITERATIONS


def _power(t: jax.Array, p: int) -> jax.Array:
    if p == 1:
        return t
    half = _power(t, p // 2)
    square = half @ half
    return square @ t if p % 2 else square
