"""How far a result may be from JAX's: by rounding, by chance, and as far as JAX's own moves."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from sonew_compiled.check._compare import difference, movement

STILL = np.zeros(2000)


def far(got: Any, want: Any, moved: np.ndarray | None = None) -> bool:
    return difference(got, want, lambda: STILL[: want.size].reshape(want.shape) if moved is None else moved) is not None


def test_rounding_is_let_through_and_no_more() -> None:
    want = np.linspace(-1, 1, 2000, dtype=np.float32)
    assert not far(want * np.float32(1 + 5e-5), want)
    assert far(want * np.float32(1 + 5e-4), want)
    narrow = want.astype(ml_dtypes.bfloat16)
    assert not far((want * 1.005).astype(ml_dtypes.bfloat16), narrow)
    assert far((want * 1.2).astype(ml_dtypes.bfloat16), narrow)
    # This holds for numbers that were computed in 16 bits and returned in 32, and for no others.
    near, farther = ((want * factor).astype(ml_dtypes.bfloat16).astype(np.float32) for factor in (1.005, 1.2))
    assert not far(near, narrow.astype(np.float32))
    assert far(farther, narrow.astype(np.float32))
    assert far(want * np.float32(1.005), narrow.astype(np.float32))
    # One of two thousand elements may be wrong, but not a whole row, and none of a small tensor.
    wrong = want.copy()
    wrong[5] = 7
    assert not far(wrong, want)
    assert far(wrong[:500], want[:500])
    wrong[:20] = 7
    assert far(wrong, want)
    # Elements may differ as far as JAX's own result moves.
    moved = STILL.copy()
    moved[:20] = 8
    assert not far(wrong, want, moved)


def test_what_lies_together_is_no_chance() -> None:
    """A loop that ends too early spares the last row, the last column or a corner of a tensor: few of its elements."""
    want = np.random.default_rng(0).normal(size=(1000, 1200)).astype(np.float32)
    scattered = want.copy()
    scattered.reshape(-1)[np.random.default_rng(1).permutation(want.size)[:1200]] = 7
    moved = np.zeros(want.shape)
    assert not far(scattered, want, moved)
    for place in (np.s_[-1], np.s_[:, -1], np.s_[-8:, -8:], np.s_[0, :700]):
        wrong = want.copy()
        wrong[place] = 7
        assert far(wrong, want, moved), place
        # What JAX's own result does when the inputs move is no fault.
        assert not far(wrong, want, np.abs(wrong - want))
    one = want.copy()
    one[3, :20] = 7
    assert not far(one, want, moved)


def test_what_is_no_number_has_to_be_none_too() -> None:
    want = np.array([1, np.nan, np.inf, -np.inf], np.float32)
    assert not far(want.copy(), want)
    for index, value in ((0, np.nan), (1, 1), (2, 1e30), (3, np.inf), (0, np.inf)):
        wrong = want.copy()
        wrong[index] = value
        assert far(wrong, want), (index, value)


def test_whole_numbers_are_exact_and_codes_of_eight_bits_may_be_the_next() -> None:
    count = np.arange(4, dtype=np.int32)
    assert not far(count.copy(), count)
    assert far(count + 1, count)
    codes = np.arange(100, dtype=np.int8)
    near = codes.copy()
    near[:2] += 1
    assert not far(near, codes)
    near[:3] = codes[:3] + 1
    assert far(near, codes)
    near = codes.copy()
    near[0] += 2
    assert far(near, codes)


def test_movement_is_the_farthest_of_all_runs() -> None:
    want = np.array([1, np.nan, 3], np.float32)
    runs = [np.array([1.5, np.nan, 3], np.float32), np.array([1.25, np.nan, 1], np.float32)]
    np.testing.assert_array_equal(movement(runs, want), [0.5, 0, 2])
