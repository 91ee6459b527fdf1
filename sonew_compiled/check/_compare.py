"""How far a result may be from JAX's: rounding, and what rounding can become in the function itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sonew_compiled.runtime.dtypes import is_floating

# Sums in another order differ by this much, relative to the number and to the tensor's largest.
_RELATIVE = 1e-4
_OF_LARGEST = 1e-5
# As many times as far as JAX's own result moves when the inputs move in their last places.
_TIMES_MOVED = 16.0
# Roundings to a narrow dtype that fall to the other side.
_PLACES = 4.0
# Of a large tensor, the part that may be anything: where a sign or a choice hangs on a rounding.
_CHAOTIC, _LARGE = 1e-3, 1000
# Of codes of 8 bits, the part that may be the next code.
_NEXT_CODES = 0.02


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A tensor that is not JAX's.

    Attributes:
      largest: absolute difference, over the elements that are too far.
      count: of elements that are too far.
      size: of the tensor.
    """

    largest: float
    count: int
    size: int


def difference(got: np.ndarray, want: np.ndarray, moved: np.ndarray) -> Difference | None:
    """Where a result is too far from JAX's; None if nowhere.

    Args:
      got: the result.
      want: JAX's, of the same shape and dtype.
      moved: how far JAX's moves, element by element, when the inputs move in their last places; float64.
    """
    assert (got.shape, got.dtype) == (want.shape, want.dtype), (got.shape, got.dtype, want.shape, want.dtype)
    if not want.size:
        return None
    floating = is_floating(want.dtype)
    here, there = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(invalid="ignore"):
        far = np.abs(here - there)
    same = (here == there) | (np.isnan(here) & np.isnan(there))
    moved = np.where(np.isfinite(moved), moved, np.inf)
    accepted = _TIMES_MOVED * moved
    if floating:
        finite = np.abs(there[np.isfinite(there)])
        largest = float(finite.max()) if finite.size else 0.0
        calm = moved[np.isfinite(moved)]
        accepted = accepted + (
            np.where(np.isfinite(there), np.abs(there), 0.0) * max(_RELATIVE, _PLACES * _epsilon(want.dtype))
            + largest * max(_OF_LARGEST, _epsilon(want.dtype) / _PLACES)
            + _TIMES_MOVED * (float(calm.mean()) if calm.size else 0.0)
        )
    bad = ~same & ~(far <= accepted)
    allowed = int(_CHAOTIC * want.size) if floating and want.size >= _LARGE else 0
    if want.dtype.kind in "iu" and want.dtype.itemsize == 1 and not (far[bad] > 1).any():
        allowed = int(_NEXT_CODES * want.size)
    if int(bad.sum()) <= allowed:
        return None
    return Difference(largest=float(np.nanmax(np.where(bad, far, 0.0))), count=int(bad.sum()), size=want.size)


def movement(results: list[np.ndarray], want: np.ndarray) -> np.ndarray:
    """How far each element of a result moves at most in some others, in float64."""
    largest = np.zeros(want.shape)
    with np.errstate(invalid="ignore"):
        for result in results:
            other, first = result.astype(np.float64), want.astype(np.float64)
            step = np.abs(other - first)
            same = (other == first) | (np.isnan(other) & np.isnan(first))
            largest = np.maximum(largest, np.where(same, 0.0, step))
    return largest


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same bytes."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _epsilon(dtype: np.dtype) -> float:
    return {2: 2.0**-7 if dtype.name == "bfloat16" else 2.0**-10}.get(dtype.itemsize, 2.0**-23)
