"""Arrays of 8-bit numbers: blocks with a scale each, and levels that are relatively finer for larger numbers."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sonew_compiled.optimizer._counter_noise import uniform_noise
from sonew_compiled.optimizer._precision import in_float32

# `contract.py` has the names of the functions below that are in float32, by which `recurrence.py` sees through them.
BLOCK = 256


class Quantized(NamedTuple):
    r"""An array with 8 bits an entry.

    A code `c >= 1` stands for the level `10^{i - d + 1} (0.1 + 0.9 (c - 2^i + 1/2) / 2^i)`. Here `i` is the position of
    the leading one of `c`, and `d` is the number of decades: 7 for signed codes, whose highest bit is the sign, and 8
    for unsigned ones. Code 0 is zero. Each decade has twice as many cells as the decade below, and a level is the
    middle of a cell. An entry is its level times the block's scale, so that the largest entry is exact.

    Attributes:
      codes: uint8, of shape (blocks, 256); the last block is padded with zeros.
      scales: of shape (blocks,), in the dtype of the array: the largest magnitude over the largest level, and with
        stochastic rounding the next bfloat16 number from there on.

    References:
      Dettmers, Lewis, Shleifer, Zettlemoyer, 8-bit Optimizers via Block-wise Quantization, 2021, arXiv 2110.02861,
      sections 2.1 (block-wise) and 2.2 (dynamic tree quantization). Its unsigned kind has seven decades of twice as
      many cells. Eight decades keep second moments above zero for longer.
    """

    codes: jax.Array
    scales: jax.Array


def zeros(x: jax.Array) -> Quantized:
    """Zeros of an array's shape and dtype."""
    blocks = -(-x.size // BLOCK)
    return Quantized(codes=jnp.zeros((blocks, BLOCK), jnp.uint8), scales=jnp.zeros((blocks,), x.dtype))


def quantize(x: jax.Array, *, signed: bool, key: jax.Array | None = None) -> Quantized:
    """`x` rounded to levels; without `signed`, a positive number becomes at least the smallest level.

    Args:
      x: of any shape; without `signed` it must have no negative entries.
      signed: whether codes have a sign and 7 decades, or 8 decades. The error of rounding to nearest is at most half a
        cell, `0.45 * 10^{i - d + 1} / 2^i` times the scale, or the smallest level.
      key: of `tensor_key`, for stochastic rounding: a number between two levels becomes the upper one with a
        probability equal to its share of the distance, so that the mean is the number. None rounds to the nearest.
    """
    if key is not None:
        by = _quantize_signed_stochastically if signed else _quantize_unsigned_stochastically
        codes, scales = by(x, key)
    else:
        codes, scales = (_quantize_signed if signed else _quantize_unsigned)(x)
    return Quantized(codes=codes, scales=scales.astype(x.dtype))


def dequantize(q: Quantized, shape: tuple[int, ...], *, signed: bool) -> jax.Array:
    """The array of this shape, in the dtype of the scales."""
    size = 1
    for n in shape:
        size *= n
    blocks = (_dequantize_signed if signed else _dequantize_unsigned)(q.codes, q.scales)
    return blocks.reshape(-1)[:size].reshape(shape).astype(q.scales.dtype)


def level(code: int, *, signed: bool) -> float:
    """The level of a code, its sign left out."""
    place = code.bit_length() - 1
    return _cell(place, _decades(signed)) * (code - 2**place + 0.5) + _floor(place, _decades(signed)) if code else 0.0


@in_float32
def _quantize_signed(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _encode(x, signed=True)


@in_float32
def _quantize_unsigned(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _encode(x, signed=False)


@in_float32
def _quantize_signed_stochastically(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _encode_stochastically(x, key, signed=True)


@in_float32
def _quantize_unsigned_stochastically(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _encode_stochastically(x, key, signed=False)


@in_float32
def _dequantize_signed(codes: jax.Array, scales: jax.Array) -> jax.Array:
    return _decode(codes, scales, signed=True)


@in_float32
def _dequantize_unsigned(codes: jax.Array, scales: jax.Array) -> jax.Array:
    return _decode(codes, scales, signed=False)


def _encode(x: jax.Array, *, signed: bool) -> tuple[jax.Array, jax.Array]:
    blocks = jnp.pad(x.reshape(-1), (0, -x.size % BLOCK)).reshape(-1, BLOCK)
    decades = _decades(signed)
    magnitude = jnp.abs(blocks)
    scales = jnp.max(magnitude, axis=1) / level(2**decades - 1, signed=signed)
    ratio = magnitude / jnp.where(scales > 0, scales, 1)[:, None]
    # The boundaries go up from half the smallest level, or from zero if a positive number must not become zero.
    smallest = level(1, signed=signed) / 2 if signed else 0
    codes = jnp.where(ratio > smallest, 1, 0).astype(jnp.int32)
    for place in range(1, decades):
        cell = jnp.floor((ratio - _floor(place, decades)) / _cell(place, decades)).astype(jnp.int32)
        codes = jnp.where(ratio >= _floor(place, decades), 2**place + jnp.clip(cell, 0, 2**place - 1), codes)
    if signed:
        codes = codes + jnp.where((blocks < 0) & (codes > 0), 128, 0)
    return codes.astype(jnp.uint8), scales


def _encode_stochastically(x: jax.Array, key: jax.Array, *, signed: bool) -> tuple[jax.Array, jax.Array]:
    blocks = jnp.pad(x.reshape(-1), (0, -x.size % BLOCK)).reshape(-1, BLOCK)
    decades = _decades(signed)
    magnitude = jnp.abs(blocks)
    scales = _up_to_bfloat16(jnp.max(magnitude, axis=1) / level(2**decades - 1, signed=signed))
    ratio = magnitude / jnp.where(scales > 0, scales, 1)[:, None]
    lower = jnp.zeros(blocks.shape, jnp.int32)
    share = ratio / level(1, signed=signed)
    for place in range(decades):
        first, last, width = 2**place, 2 ** (place + 1) - 1, _cell(place, decades)
        at = (ratio - _floor(place, decades)) / width - 0.5
        cell = jnp.clip(jnp.floor(at), -1, last - first)
        # The distances to the levels of the decades below and above, in cells of this one.
        below = (level(first, signed=signed) - level(first - 1, signed=signed)) / width
        above = (level(last + 1, signed=signed) - level(last, signed=signed)) / width if place < decades - 1 else 1.0
        part = jnp.where(cell < 0, (at + below) / below, (at - cell) / jnp.where(cell == last - first, above, 1))
        inside = ratio >= _floor(place, decades)
        lower = jnp.where(inside, first + cell.astype(jnp.int32), lower)
        share = jnp.where(inside, part, share)
    if not signed:
        share = jnp.where(lower > 0, share, 0)
        lower = jnp.where(ratio > 0, jnp.maximum(lower, 1), 0)
    codes = lower + jnp.where(uniform_noise(key, blocks.shape, ratio.dtype) < share, 1, 0)
    codes = jnp.minimum(codes, 2**decades - 1)
    if signed:
        codes = codes + jnp.where((blocks < 0) & (codes > 0), 128, 0)
    return codes.astype(jnp.uint8), scales.astype(x.dtype)


def _up_to_bfloat16(x: jax.Array) -> jax.Array:
    """The next bfloat16 number from `x >= 0` on, as a float32.

    Every precision policy stores it as it is. If a policy rounded a scale to nearest, a slowly decaying one would never
    become smaller, and the codes, which are relative to the scale before that, would not be unbiased.
    """
    x = x.astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    up = jax.lax.bitcast_convert_type((bits + jnp.uint32(0xFFFF)) & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(x < jnp.inf, up, x)


def _decode(codes: jax.Array, scales: jax.Array, *, signed: bool) -> jax.Array:
    decades = _decades(signed)
    codes = codes.astype(jnp.int32)
    negative = codes >= 128
    codes = codes - jnp.where(negative, 128, 0) if signed else codes
    ratio = jnp.where(codes > 0, level(1, signed=signed), 0.0).astype(scales.dtype)
    for place in range(1, decades):
        inside = (codes - 2**place).astype(scales.dtype) + 0.5
        ratio = jnp.where(codes >= 2**place, _floor(place, decades) + _cell(place, decades) * inside, ratio)
    signs = jnp.where(negative, -1, 1).astype(scales.dtype) if signed else 1
    return ratio * signs * scales[:, None]


def _decades(signed: bool) -> int:
    return 7 if signed else 8


def _floor(place: int, decades: int) -> float:
    """The lower end of a decade."""
    return float(10.0 ** (place - decades))


def _cell(place: int, decades: int) -> float:
    """The width of a cell of a decade."""
    return float(0.9 * 10.0 ** (place - decades + 1) / 2**place)
