"""Fourier transforms by matrix products.

A transform of length n = a b is one of length a, a multiplication by roots of unity, and one of length b. So 784 =
28 * 28 takes two products with 28 x 28 matrices. A length with a prime factor above `_LARGEST_FACTOR` becomes a
convolution with a chirp (Bluestein), whose length is a power of two. All arithmetic is on pairs of real arrays; complex
numbers occur only in the arguments and results.

References:
  Cooley and Tukey, An algorithm for the machine calculation of complex Fourier series, 1965.
  Bluestein, A linear filtering approach to the computation of discrete Fourier transform, 1970.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core.primitives import fft_p
from jax.lax import Precision

from sonew_compiled.rules._rule import Rule, rule

_LARGEST_FACTOR = 64


class _Pair(NamedTuple):
    """A complex array as two real ones."""

    real: jax.Array
    imag: jax.Array


def fft(x: jax.Array, *, fft_type: jax.lax.FftType, fft_lengths: tuple[int, ...]) -> jax.Array:
    """The transform of the last axes of `x`, as `jax.lax.fft` has it.

    Args:
      x: complex, or real for RFFT, of shape (..., *fft_lengths); for IRFFT the last is n // 2 + 1.
    """
    kind = fft_type.name
    pair = _Pair(x, jnp.zeros_like(x)) if kind == "RFFT" else _Pair(jnp.real(x), jnp.imag(x))
    forward = kind in ("FFT", "RFFT")
    *others, last = range(-len(fft_lengths), 0)
    if kind == "RFFT":
        pair = _Pair(*(each[..., : fft_lengths[-1] // 2 + 1] for each in _along(pair, last, forward=True)))
    for axis in others:
        pair = _along(pair, axis, forward=forward)
    if kind == "IRFFT":
        return _along(_from_half(pair, fft_lengths[-1]), last, forward=False).real
    if kind != "RFFT":
        pair = _along(pair, last, forward=forward)
    return jax.lax.complex(*pair)


def _from_half(half: _Pair, n: int) -> _Pair:
    """The whole spectrum of a real signal of length `n`; imaginary parts that must be zero are ignored."""
    # Each frequency occurs again as its conjugate, except the first and, for even lengths, the middle one.
    again = n - 1 - n // 2
    real, imag = half
    where = jnp.arange(real.shape[-1])
    alone = (where == 0) | ((n % 2 == 0) & (where == n // 2))
    imag = jnp.where(alone, 0, imag)
    mirrored = (jnp.flip(each[..., 1 : again + 1], axis=-1) for each in (real, imag))
    return _Pair(jnp.concatenate([real, next(mirrored)], axis=-1), jnp.concatenate([imag, -next(mirrored)], axis=-1))


def _along(x: _Pair, axis: int, *, forward: bool) -> _Pair:
    """The transform along an axis; the inverse one with its factor 1/n."""
    n = x.real.shape[axis]
    moved = _Pair(*(jnp.moveaxis(each, axis, -1) for each in x))
    # Exchanging the real and imaginary parts, before and after, gives the inverse transform.
    found = _transform(moved if forward else moved[::-1])
    if not forward:
        found = _Pair(found.imag / n, found.real / n)
    return _Pair(*(jnp.moveaxis(each, -1, axis) for each in found))


def _transform(x: tuple[jax.Array, jax.Array]) -> _Pair:
    """The transform of the last axis."""
    n = x[0].shape[-1]
    if n <= 1 or x[0].size == 0:
        return _Pair(*x)
    if n <= _LARGEST_FACTOR:
        return _multiplied(x, _root(np.outer(np.arange(n), np.arange(n)), n, x[0].dtype))
    first = _factor(n)
    if not first:
        return _bluestein(x)
    second = n // first
    # Sample second * i + j, frequency k + first * l.
    split = _Pair(*(jnp.swapaxes(each.reshape(*each.shape[:-1], first, second), -1, -2) for each in x))
    over_first = _transform(split)
    twisted = _product(over_first, _root(np.outer(np.arange(second), np.arange(first)), n, x[0].dtype))
    over_second = _transform(_Pair(*(jnp.swapaxes(each, -1, -2) for each in twisted)))
    return _Pair(*(jnp.swapaxes(each, -1, -2).reshape(*each.shape[:-2], n) for each in over_second))


def _factor(n: int) -> int:
    """The largest factor of `n` up to its square root; 0 if a prime factor is too large."""
    rest, largest = n, 1
    for prime in range(2, _LARGEST_FACTOR + 1):
        while rest % prime == 0:
            rest, largest = rest // prime, prime
    if rest > 1:
        return 0
    assert largest > 1
    return max(factor for factor in range(1, math.isqrt(n) + 1) if n % factor == 0)


def _bluestein(x: tuple[jax.Array, jax.Array]) -> _Pair:
    """The transform of the last axis as a convolution, by `j k = (j^2 + k^2 - (k - j)^2) / 2`."""
    n = x[0].shape[-1]
    size = 1 << (2 * n - 2).bit_length()
    squares = np.arange(n, dtype=np.int64) ** 2
    chirp = _root(squares, 2 * n, x[0].dtype)
    filter_ = np.zeros(size, np.complex128)
    filter_[:n] = np.exp(1j * np.pi * (squares % (2 * n)) / n)
    filter_[size - n + 1 :] = filter_[1:n][::-1]
    spectrum = np.fft.fft(filter_)
    filtered = _Pair(jnp.asarray(spectrum.real, x[0].dtype), jnp.asarray(spectrum.imag, x[0].dtype))
    padding = [(0, 0)] * (x[0].ndim - 1) + [(0, size - n)]
    padded = _Pair(*(jnp.pad(each, padding) for each in _product(x, chirp)))
    convolved = _along(_product(_along(padded, -1, forward=True), filtered), -1, forward=False)
    return _product(_Pair(*(each[..., :n] for each in convolved)), chirp)


def _root(exponents: np.ndarray, n: int, dtype: jnp.dtype) -> _Pair:
    """`exp(-2 pi i exponents / n)`, computed in float64."""
    angle = -2 * np.pi * (exponents % n) / n
    return _Pair(jnp.asarray(np.cos(angle), dtype), jnp.asarray(np.sin(angle), dtype))


def _product(x: tuple[jax.Array, jax.Array], y: _Pair) -> _Pair:
    return _Pair(x[0] * y.real - x[1] * y.imag, x[0] * y.imag + x[1] * y.real)


def _multiplied(x: tuple[jax.Array, jax.Array], matrix: _Pair) -> _Pair:
    """Both parts of `x` times both parts of the matrix, in one product."""
    n = x[0].shape[-1]
    both = jnp.concatenate(
        [jnp.concatenate([matrix.real, matrix.imag], axis=1), jnp.concatenate([-matrix.imag, matrix.real], axis=1)]
    )
    found = jnp.matmul(jnp.concatenate(x, axis=-1), both, precision=Precision.HIGHEST)
    return _Pair(found[..., :n], found[..., n:])


RULES: tuple[Rule, ...] = (rule(fft_p, fft, name="in_float32_fft"),)
