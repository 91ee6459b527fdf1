"""Numbers beyond an integer's range, equal elements, zeros and infinities, natively and on bytecode, against NumPy."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

X = np.array(
    [
        *(-0.0, 0.0, 0.9, -0.9, -1.5, 127.5, 128, -129, 255.5, 256, 7e4, -7e4),
        *(2**31, -(2**31), 2**32, 3e38, -3e38, np.inf, -np.inf, np.nan),
    ],
    np.float32,
)
Y = np.array([0, 0, -0.0, 0.0, 1, -1, -1e-30, 2, np.inf, -np.inf, np.inf, -np.inf, np.inf, -0.5, 0, 0.5], np.float32)
RUN = np.array([0, -0.0, 0, -2, 0, -0.0, -1e30, 3, np.inf, np.inf, -np.inf, -np.inf, 5, -np.inf, -1, 0.1], np.float32)
TIES = np.array([3, 1, 2, 1, 3, 2, 2, 1, 3, 3], np.int8)
INTEGERS = ("int8", "int16", "int32", "uint8", "uint16", "uint32")


def _saturated(numbers: np.ndarray, kind: str) -> np.ndarray:
    limits = np.iinfo(kind)
    whole = np.nan_to_num(np.trunc(numbers.astype(np.float64)), nan=0, posinf=limits.max, neginf=limits.min)
    return np.clip(whole, limits.min, limits.max).astype(kind)


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_special_values_are_numpys(target: str, on_iree: Callable[..., list[Any]]) -> None:
    def function(x: Any, y: Any, run: Any, ties: Any) -> Any:
        half = x.astype(jnp.bfloat16)
        shifted = jnp.hypot(half, 2 * half)[:9]
        return (
            {kind: (x.astype(kind), half.astype(kind)) for kind in INTEGERS},
            (jnp.arctan2(y, run), jnp.cbrt(y), jnp.abs(lax.complex(y, run)), shifted),
            (jnp.argsort(ties), jnp.argsort(ties.astype(jnp.float32), descending=True), lax.top_k(ties, 7)),
        )

    (got,) = on_iree(function, X, Y, RUN, TIES, target=target)
    whole, (angles, roots, sizes, shifted), (ranks, falling, (largest, where)) = got
    half = np.asarray(jnp.asarray(X).astype(jnp.bfloat16)).astype(np.float32)
    for kind, (from_single, from_half) in whole.items():
        np.testing.assert_array_equal(from_single, _saturated(X, kind), err_msg=kind)
        np.testing.assert_array_equal(from_half, _saturated(half, kind), err_msg=kind)
    np.testing.assert_allclose(angles, np.arctan2(Y.astype(np.float64), RUN), rtol=1e-6, atol=1e-44)
    np.testing.assert_array_equal(np.signbit(angles), np.signbit(np.arctan2(Y, RUN)))
    np.testing.assert_allclose(roots, np.cbrt(Y.astype(np.float64)), rtol=2e-6)
    np.testing.assert_allclose(sizes, np.hypot(Y.astype(np.float64), RUN), rtol=1e-6)
    np.testing.assert_allclose(shifted.astype(np.float64), np.abs(half[:9]) * 5**0.5, rtol=2**-7)
    order = np.argsort(-TIES.astype(np.float32), kind="stable")
    np.testing.assert_array_equal(ranks, np.argsort(TIES, kind="stable"))
    np.testing.assert_array_equal(falling, order)
    np.testing.assert_array_equal(where, order[:7])
    np.testing.assert_array_equal(largest, TIES[order[:7]])


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_narrow_integers_wrap_as_numpys_do(target: str, on_iree: Callable[..., list[Any]]) -> None:
    def function(*arrays: Any) -> Any:
        found = []
        for x, y in zip(arrays[::2], arrays[1::2], strict=True):
            total, product = x + y, x * y
            found += [total // 3, product // y, lax.rem(total, y), lax.div(x, y), total < y, total > x, abs(-total)]
            found += [jnp.maximum(product, y), (x << 1) < y, (x - y).astype(jnp.float32), total[::-1]]
        narrow = arrays[-2].reshape(2, -1)
        return found, lax.dot(narrow, narrow.T, preferred_element_type=jnp.uint32)

    rng = np.random.default_rng(0)
    arrays = []
    for kind in ("int8", "int16", "uint8", "uint16"):
        limits = np.iinfo(kind)
        for low in (limits.min, 1):
            drawn = rng.integers(low, limits.max, 64, endpoint=True)
            arrays.append(np.concatenate([[limits.max, limits.min or 2, 7, 100], drawn]).astype(kind))
    (got,) = on_iree(function, *arrays, target=target)
    found, widened = got
    expected = []
    with np.errstate(over="ignore"):
        for x, y in zip(arrays[::2], arrays[1::2], strict=True):
            total, product = x + y, x * y
            toward_zero = np.trunc(x.astype(np.float64) / y).astype(np.int64).astype(x.dtype)
            expected += [total // 3, product // y, np.fmod(total, y), toward_zero, total < y, total > x, abs(-total)]
            expected += [np.maximum(product, y), (x << 1) < y, (x - y).astype(np.float32), total[::-1]]
    for number, (here, there) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_array_equal(here, there, err_msg=f"result {number}")
    wide = arrays[-2].reshape(2, -1).astype(np.uint64)
    np.testing.assert_array_equal(widened, (wide @ wide.T).astype(np.uint32))
