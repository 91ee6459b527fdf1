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
