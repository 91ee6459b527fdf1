"""Inverse p-th roots of positive semidefinite matrices by matrix products alone."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from sonew_compiled.optimizer._precision import in_float32, statistics_epsilon
from sonew_compiled.optimizer._runtime_number import RuntimeNumber

TOLERANCE = 0.1
"""A root is accepted if the largest entry of `M - I` is less than this."""

# The smallest eigenvalue that is assumed, as a share of the damping, since rounding moves the eigenvalues too.
_ROUNDED = 0.25
# The distance of the smallest eigenvalue from 1 before the last step, which squares the distance.
_CONVERGED = 1e-4
# The largest scale, as a share of `p + 1`. At `p + 1` an eigenvalue of 1 would go to 0, and rounding could take it
# below.
_OF_RANGE = 0.8
_BISECTIONS = 50


def refreshed_root(matrix: jax.Array, previous: jax.Array, p: int, eps: float | RuntimeNumber) -> jax.Array:
    """`inverse_root` with the damping that the statistics need, or the previous root if it did not converge."""
    least = statistics_epsilon(matrix.dtype)
    if isinstance(eps, RuntimeNumber):  # it may be as small as the least damping
        root, error = inverse_root(matrix, p, jnp.maximum(eps.traced, least), least=least)
    else:
        root, error = inverse_root(matrix, p, max(eps, least))
    return jnp.where(error < TOLERANCE, root.astype(previous.dtype), previous)


def inverse_root(
    matrix: jax.Array, p: int, ridge: float | jax.Array, *, least: float | None = None
) -> tuple[jax.Array, jax.Array]:
    r"""`(A + ridge * ||A||_F I)^{-1/p}` of a symmetric positive semidefinite matrix, by coupled Newton iteration.

    `A'` is the damped matrix over `||A||_F`; its eigenvalues are at most `1 + ridge`. The iteration starts from
    `X_0 = (1 + ridge)^{-1/p} I` and `M_0 = A' / (1 + ridge)`:

    .. math::
      T_k = ((p + 1) I - s_k M_k) / p, \quad X_{k+1} = s_k^{1/p} X_k T_k, \quad M_{k+1} = s_k T_k^p M_k

    `M_k` converges to the identity and `X_k` to the root. A step maps an eigenvalue `x` of `s_k M_k` to
    `f(x) = ((p + 1 - x) / p)^p x`. This is 1 at 1 and less on either side, so that all eigenvalues stay in (0, 1]. The
    scale `s_k` raises the smallest eigenvalue most. With `s_k = 1`, a step raises small eigenvalues by
    `((p + 1) / p)^p`; with the scale, by up to `4 (p + 1) / 5` times as much. A fourth root at 1e-6 then takes 11 steps
    instead of 21. The scales depend only on the damping, which bounds the smallest eigenvalue.

    Args:
      matrix: `A`, of shape (n, n).
      p: the root, 1 or more.
      ridge: damping relative to the Frobenius norm; the condition number is at most `1 + 1 / ridge`.
      least: a lower bound of `ridge`, if that is a traced scalar.

    Returns:
      The root, of shape (n, n), and the error: the largest entry of `|M - I|` before the last step, which squares it.
      Both are at least float32. The error is NaN or large if the iteration did not converge, as for a matrix with an
      eigenvalue below minus the damping.

    References:
      Guo and Higham, A Schur-Newton Method for the Matrix p-th Root and its Inverse, SIAM J. Matrix Anal. Appl. 2006,
      equation 1.6; as in Anil et al. 2020, arXiv 2002.09018, algorithm 3 of the appendix. The scales balance the ends
      of the spectrum as in Chen and Chow, A Stable Scaling of Newton-Schulz for Improving the Sign Function Computation
      of a Hermitian Matrix, 2014, for `p` = 2.
    """
    wide = jnp.promote_types(matrix.dtype, jnp.float32)
    scales = _scales(p, float(ridge) if least is None else least)
    return _of_order(p, scales)(matrix.astype(wide), ridge)


@functools.cache
def _of_order(
    p: int, scales: tuple[float, ...]
) -> Callable[[jax.Array, float | jax.Array], tuple[jax.Array, jax.Array]]:
    # A function of its own: matrices of one shape share it in the traced module.
    def inverse_root(a: jax.Array, ridge: float | jax.Array) -> tuple[jax.Array, jax.Array]:
        identity = jnp.eye(a.shape[0], dtype=a.dtype)
        # The matrix is divided by its largest entry first, since the squares of small entries would underflow.
        largest = _or_one(jnp.max(jnp.abs(a)))
        a = a / largest
        norm = _or_one(jnp.sqrt(jnp.sum(jnp.square(a))))
        top = 1 + jnp.asarray(ridge, a.dtype)

        m = (a / norm + jnp.asarray(ridge, a.dtype) * identity) / top
        t = _factor(identity, m, p, scales[0])
        x = t
        # There is no loop: in a branch, IREE 3.13 does not free the memory of a loop's rounds, and does not compile a
        # loop that ends by a comparison.
        for before, scale in itertools.pairwise(scales):
            m = before * (_power(t, p) @ m)
            t = _factor(identity, m, p, scale)
            x = x @ t
        return x * (math.prod(scales) / (largest * norm * top)) ** (1 / p), jnp.max(jnp.abs(m - identity))

    return in_float32(inverse_root)


def _or_one(number: jax.Array) -> jax.Array:
    return jnp.where(number > 0, number, jnp.ones_like(number))


def _factor(identity: jax.Array, m: jax.Array, p: int, scale: float) -> jax.Array:
    return ((p + 1) * identity - scale * m) / p


@functools.cache
def _scales(p: int, ridge: float) -> tuple[float, ...]:
    """`s_k` of each step until the smallest possible eigenvalue is within `_CONVERGED` of 1, and of one more step."""

    def image(x: float) -> float:
        return float(((p + 1 - x) / p) ** p * x)

    smallest = min(_ROUNDED * ridge / (1 + ridge), 1.0)
    scales: list[float] = []
    while not scales or 1 - smallest > _CONVERGED:
        # The largest scale for which the largest eigenvalue, which falls, stays above the smallest, which rises.
        low, most = 1.0, _OF_RANGE * (p + 1)
        for _ in range(_BISECTIONS):
            middle = (low + most) / 2
            low, most = (middle, most) if image(middle) > image(middle * smallest) else (low, middle)
        scales.append(low)
        smallest = image(low * smallest)
    return (*scales, 1.0)


def _power(t: jax.Array, p: int) -> jax.Array:
    if p == 1:
        return t
    half = _power(t, p // 2)
    square = half @ half
    return square @ t if p % 2 else square
