"""Arithmetic that IREE's bytecode lacks or computes wrongly, against NumPy."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

X = np.array([-3.7, -2.5, -0.0, 0.0, 1e-30, 0.4, 2.9, 40.5, np.inf, np.nan], np.float32)
Y = np.array([1.1, -0.7, 2.0, 3.0, 0.5, -0.3, 0.8, -3.25, 2.0, 2.0], np.float32)
WHOLE = np.array([-128, -77, -1, 0, 1, 3, 100, 127], np.int8)
BY = np.array([0, 1, 2, 3, 4, 5, 7, 9], np.int8)


def _bits(numbers: np.ndarray) -> list[str]:
    return [np.binary_repr(each, numbers.dtype.itemsize * 8) for each in numbers]


def test_arithmetic_is_numpys(on_iree: Callable[..., list[Any]]) -> None:
    integers = {"i8": WHOLE, "u8": WHOLE.view(np.uint8), "i32": WHOLE.astype(np.int32) * 16777259}

    def function(x: Any, y: Any, by: Any, *integers: Any) -> Any:
        half = x.astype(jnp.bfloat16)
        floats = {
            "sign": jnp.sign(x),
            "tan": jnp.tan(x),
            "cbrt": jnp.cbrt(x),
            "asinh": jnp.arcsinh(x),
            "fmod": lax.rem(x, y),
            "floor_divide": x // y,
            "to integers": x[:8].astype(jnp.int32),
            "half": jnp.where(half > 0, half, jnp.bfloat16(0.5)),
            "half's sign": jnp.sign(half),
            "half, sorted": jnp.sort(half),
            "half, padded": jnp.pad(half, 2, constant_values=0.5),
        }
        counts = [(lax.population_count(n), lax.clz(n)) for n in integers]
        return floats, counts, lax.shift_right_logical(integers[0], by)

    (got,) = on_iree(function, X, Y, BY, *integers.values(), target="vmvx")
    floats, counts, shifted = got
    wide = X.astype(np.float64)
    with np.errstate(invalid="ignore"):
        wanted = {
            "sign": np.sign(wide),
            "tan": np.tan(wide),
            "cbrt": np.cbrt(wide),
            "asinh": np.arcsinh(wide),
            "fmod": np.fmod(wide, Y),
            "floor_divide": np.floor_divide(X, Y),
            "half": np.where(wide > 0, wide, 0.5),
            "half's sign": np.sign(wide),
            "half, sorted": np.sort(wide),
            "half, padded": np.pad(wide, 2, constant_values=0.5),
        }
    for name, want in wanted.items():
        tolerance = 2**-8 if name.startswith("half") else 4e-7
        np.testing.assert_allclose(floats[name].astype(np.float64), want, rtol=tolerance, err_msg=name)
    np.testing.assert_array_equal(floats["to integers"], np.trunc(X[:8]).astype(np.int32))
    np.testing.assert_array_equal(np.signbit(floats["sign"][2:4]), [True, False])
    for numbers, (count, zeros) in zip(integers.values(), counts, strict=True):
        written = _bits(numbers)
        np.testing.assert_array_equal(count, [each.count("1") for each in written])
        np.testing.assert_array_equal(zeros, [len(each) - len(each.lstrip("0")) for each in written])
    want = [int(each, 2) >> int(by) for each, by in zip(_bits(WHOLE), BY, strict=True)]
    np.testing.assert_array_equal(shifted.view(np.uint8), want)
