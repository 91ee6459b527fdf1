"""Bit casts of numbers, and arithmetic on unsigned integers, against NumPy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

X = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(12, 5)).astype(np.float32)


def _outputs(x: Any, w: Any) -> dict[str, Any]:
    word, halves = lax.bitcast_convert_type(x, jnp.uint32), lax.bitcast_convert_type(x, jnp.uint16)
    rounded = lax.bitcast_convert_type(word + 0x8000 & jnp.uint32(0xFFFF0000), jnp.float32)
    square = x * x + 0.1
    guess = lax.bitcast_convert_type(0x5F3759DF - (lax.bitcast_convert_type(square, jnp.int32) >> 1), jnp.float32)
    upper = halves[..., 1]
    return {
        "there and back": lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.int32), jnp.float32) @ w,
        "rounded": rounded @ w,
        "straight through": (x + lax.stop_gradient(rounded - x)) @ w,
        "inverse root": guess * (1.5 - 0.5 * square * guess * guess) @ w,
        # IREE takes unsigned numbers for signed ones in a product.
        "bits as numbers": upper.astype(jnp.float32) @ w,
        "upper half": lax.bitcast_convert_type(upper, jnp.bfloat16).astype(jnp.float32) @ w,
        "bytes": lax.bitcast_convert_type(x, jnp.uint8).astype(jnp.float32).sum(-1) @ w,
    }


def test_bits_of_numbers(on_iree: Callable[..., list[Any]]) -> None:
    def function(x: Any, w: Any) -> Any:
        def loss(w: Any) -> Any:
            return sum(jnp.mean(jnp.tanh(each * 1e-5)) for each in _outputs(x, w).values())

        return _outputs(x, w), jax.grad(loss)(w)

    (got,) = on_iree(function, X, W)
    word = X.view(np.uint32)
    rounded = ((word + 0x8000) & 0xFFFF0000).view(np.float32)
    square = X * X + np.float32(0.1)
    guess = (0x5F3759DF - (square.view(np.int32) >> 1)).view(np.float32)
    upper = (word >> 16).astype(np.float64)
    wanted = {
        "there and back": X,
        "rounded": rounded,
        "straight through": rounded,
        "inverse root": guess * (1.5 - 0.5 * square * guess * guess),
        "bits as numbers": upper,
        "upper half": (word & 0xFFFF0000).view(np.float32),
        "bytes": X.view(np.uint8).reshape(*X.shape, 4).sum(-1),
    }
    wide, slope = W.astype(np.float64), np.zeros(W.shape)
    for name, left in wanted.items():
        left = np.asarray(left, np.float64)
        want = left @ wide
        np.testing.assert_allclose(got[0][name], want, rtol=1e-5, atol=1e-6 * np.abs(want).max(), err_msg=name)
        slope += left.T @ (1e-5 * (1 - np.tanh(want * 1e-5) ** 2)) / want.size
    np.testing.assert_allclose(got[1], slope, rtol=1e-4, atol=1e-6 * np.abs(slope).max())


def test_windows_of_unsigned_integers(on_iree: Callable[..., list[Any]]) -> None:
    x = np.array([3, 200, 7, 0, 255, 4], np.uint8)

    def function(x: Any) -> Any:
        spread = lax.reduce_window(x, np.uint8(1), lax.add, (2,), (1,), [(1, 0)], base_dilation=(2,))
        return jnp.cumsum(x), lax.cummax(x, reverse=True), lax.cummin(x.astype(jnp.uint32)), spread

    ((total, largest, smallest, spread),) = on_iree(function, x)
    np.testing.assert_array_equal(total, np.cumsum(x, dtype=total.dtype))
    np.testing.assert_array_equal(largest, np.maximum.accumulate(x[::-1])[::-1])
    np.testing.assert_array_equal(smallest, np.minimum.accumulate(x))
    padded = np.full(12, 1, np.uint8)
    padded[1::2] = x
    np.testing.assert_array_equal(spread, padded[1:] + padded[:-1] + np.uint8(1))
