"""How far a result may be from JAX's: rounding, and the growth of rounding errors within the function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sonew_compiled.runtime.dtypes import is_floating

# Sums in another order differ by this much, relative to the number and to the tensor's largest.
_RELATIVE = 1e-4
_OF_LARGEST = 1e-5
# Numbers of about 1, such as updates at the rate that is tried, leave this much where they cancel.
_CANCELLED = 2.0**-21
# A result may be off by this many times the distance that JAX's own moves when the inputs move in their last places.
_TIMES_MOVED = 16.0
# Roundings to a narrow dtype that fall to the other side.
_PLACES = 4.0
_BFLOAT16 = 2.0**-7
# The share of a large tensor that may be anything, because a sign or a choice depends on a rounding.
_CHAOTIC, _LARGE = 1e-3, 1000
# So many elements in one place, or in one line along an axis, are no chance.
_TOGETHER = 32
# The share of 8-bit codes that may be the next code.
_NEXT_CODES = 0.02
# Elements that are compared at a time, so that what they are compared by stays in the processor's cache.
_BLOCK = 2**14
# What all elements of a tensor have in common is looked for in so many of them first.
_FIRST = 1000


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A tensor that is not JAX's.

    Attributes:
      largest: the largest absolute difference among the elements that are too far from JAX's.
      count: the number of these elements.
      size: the number of elements of the tensor.
    """

    largest: float
    count: int
    size: int


def difference(
    got: np.ndarray, want: np.ndarray, movement: Callable[[], np.ndarray], *, choices: float = 0.0
) -> Difference | None:
    """Where a result is too far from JAX's; None if nowhere.

    Args:
      got: the result.
      want: JAX's, of the same shape and dtype.
      movement: how far JAX's moves, element by element, when the inputs move in their last places; asked for only where
        that decides.
      choices: the share of its elements that may be anything, rounded up if there are several.
    """
    assert (got.shape, got.dtype) == (want.shape, want.dtype), (got.shape, got.dtype, want.shape, want.dtype)
    if not want.size or _all_same(got, want):
        return None
    chosen = math.ceil(choices * want.size) if want.size > 1 else 0
    floating = is_floating(want.dtype)
    wide = np.float32 if floating and want.dtype.itemsize < 8 else np.float64
    here, there = got.astype(wide, copy=False), want.astype(wide, copy=False)
    epsilon = _epsilon(here, there, want.dtype)
    with np.errstate(invalid="ignore"):
        # Most tensors end here.
        if _all_near(here, there, epsilon) if floating else np.array_equal(here, there):
            return None
        far: np.ndarray = np.abs(np.subtract(here, there))
        size = np.abs(there)
        accepted = size * _relative(epsilon) + _absolute(size, epsilon) if floating else np.zeros(want.shape)
        # Where a result is infinite or NaN, no distance says whether the other is the same. The difference of two
        # infinities is NaN, for which no comparison holds.
        bad = ~((far <= accepted) & np.isfinite(there)) & (here != there) & ~(np.isnan(here) & np.isnan(there))
    if _few(bad, far, want.dtype) or bad.sum() <= chosen:
        return None
    moved = movement()
    calm = moved[np.isfinite(moved)]
    spread = moved + (float(calm.mean(dtype=np.float64)) if floating and calm.size else 0.0)
    bad &= ~((far <= np.where(np.isfinite(there), accepted, 0) + _TIMES_MOVED * spread) | ~np.isfinite(moved))
    if _few(bad, far, want.dtype) or bad.sum() <= chosen:
        return None
    return Difference(largest=float(np.nan_to_num(far[bad], nan=np.inf).max()), count=int(bad.sum()), size=want.size)


def _all_near(here: np.ndarray, there: np.ndarray, epsilon: float) -> bool:
    """Whether all numbers are finite and as near as rounding allows."""
    one, other = here.reshape(-1), there.reshape(-1)
    largest = max(abs(float(other.max())), abs(float(other.min())))
    if not math.isfinite(largest):
        return False
    relative, absolute = _relative(epsilon), _absolute(np.array([largest]), epsilon)
    memory = np.empty((2, min(one.size, _BLOCK)), other.dtype)
    for start in range(0, one.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        far, accepted = memory[:, : one[part].size]
        np.abs(np.subtract(one[part], other[part], out=far), out=far)
        np.multiply(np.abs(other[part], out=accepted), relative, out=accepted)
        if not (far <= np.add(accepted, absolute, out=accepted)).all():
            return False
    return True


def _all_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same bytes; the first of them nearly always tell, but for constants."""
    return all(same_bits(*(each.reshape(-1)[:end] for each in (one, other))) for end in (_FIRST, None))


def _few(bad: np.ndarray, far: np.ndarray, dtype: np.dtype) -> bool:
    """Whether the elements that are too far are so few, and so scattered, that chance explains them."""
    count = int(bad.sum())
    if dtype.kind in "iu" and dtype.itemsize == 1 and not (far[bad] > 1).any():
        return count <= int(_NEXT_CODES * bad.size)
    allowed = int(_CHAOTIC * bad.size) if is_floating(dtype) and bad.size >= _LARGE else 0
    return count <= allowed and not _together(bad, count)


def _together(bad: np.ndarray, count: int) -> bool:
    """Whether most of a line along an axis, or of the block that holds all of them, is bad: a loop that ends too early.

    Args:
      bad: a mask of the bad elements, of any shape.
      count: the number of bad elements.
    """
    if count < _TOGETHER:
        return False
    lines = (2 * int(bad.sum(axis).max()) > length >= _TOGETHER for axis, length in enumerate(bad.shape))
    return any(lines) or 2 * count > math.prod(int(np.ptp(index)) + 1 for index in np.nonzero(bad))


def _relative(epsilon: float) -> float:
    return max(_RELATIVE, _PLACES * epsilon)


def _absolute(size: np.ndarray, epsilon: float) -> float:
    finite = size[np.isfinite(size)]
    largest = float(finite.max()) if finite.size else 0.0
    return largest * max(_OF_LARGEST, epsilon / _PLACES) + _CANCELLED


def movement(results: list[np.ndarray], want: np.ndarray) -> np.ndarray:
    """How far each element of a result moves at most in some others, in float32 or float64."""
    wide = np.float32 if is_floating(want.dtype) and want.dtype.itemsize < 8 else np.float64
    first = want.astype(wide)
    largest = np.zeros(want.shape, wide)
    with np.errstate(invalid="ignore"):
        for result in results:
            other = result.astype(wide)
            same = (other == first) | (np.isnan(other) & np.isnan(first))
            largest = np.maximum(largest, np.where(same, 0, np.abs(np.subtract(other, first))))
    return largest


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    # Whole words are compared in a fraction of the time of single bytes.
    word = f"u{one.itemsize}" if one.itemsize in (1, 2, 4, 8) else "u1"
    return np.array_equal(one.reshape(-1).view(word), other.reshape(-1).view(word))


def _epsilon(here: np.ndarray, there: np.ndarray, dtype: np.dtype) -> float:
    """From 1 to the next number, of the dtype in which both results, here widened, were computed.

    Where arithmetic is of 16 bits, float32 results hold nothing but what bfloat16 has.
    """
    if dtype.itemsize == 2:
        return _BFLOAT16 if dtype.name == "bfloat16" else 2.0**-10
    rounded = dtype == np.float32 and all(_is_rounded(each) for each in (here, there))
    return _BFLOAT16 if rounded else 2.0**-23


def _is_rounded(array: np.ndarray) -> bool:
    """Whether float32 numbers are all bfloat16's; the first of them nearly always tell."""
    bits = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
    return not ((bits[:_FIRST] & 0xFFFF).any() or (bits & 0xFFFF).any())
