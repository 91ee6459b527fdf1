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


def test_comparisons_with_what_is_no_number_are_numpys(on_iree: Callable[..., list[Any]]) -> None:
    x = np.array([np.nan, 1, np.nan, 2, -0.0, np.inf, np.inf, 1, -np.inf], np.float32)
    y = np.array([1, np.nan, np.nan, 2, 0.0, np.inf, np.nan, 2, 1], np.float32)

    def function(x: Any, y: Any) -> Any:
        pairs = [(x, y), (x.astype(jnp.bfloat16), y.astype(jnp.bfloat16))]
        twice = jnp.sin(jnp.clip(x, -2, 2)) <= jnp.sin(jnp.clip(x, -2, 2))
        ways = [(a < b, a <= b, a > b, a >= b, a == b, a != b, a >= a, a == a) for a, b in pairs]
        denied = [(~(a < b), ~(a <= b), ~(a > b), ~(a >= b), ~(a == b), ~(a != b), (a > 0) ^ True) for a, b in pairs]
        kinds = [(jnp.isnan(a), jnp.isfinite(a), jnp.isinf(a), jnp.nan_to_num(a, nan=3, posinf=4)) for a, _ in pairs]
        return (
            ways,
            denied,
            kinds,
            twice,
            jnp.argmax(x),
            jnp.nanmax(x[:4]),
            jnp.all(jnp.isfinite(y)),
            jnp.nextafter(y, x),
        )

    (got,) = on_iree(function, x, y, target="vmvx")
    ways, denied, kinds, twice, largest, largest_number, finite, after = got
    for each in ways:
        wanted = (x < y, x <= y, x > y, x >= y, x == y, x != y, ~np.isnan(x), ~np.isnan(x))
        np.testing.assert_array_equal(each, wanted)
    for each in denied:
        wanted = (~(x < y), ~(x <= y), ~(x > y), ~(x >= y), x != y, x == y, ~(x > 0))
        np.testing.assert_array_equal(each, wanted)
    for nan, is_finite, infinite, number in kinds:
        np.testing.assert_array_equal((nan, is_finite, infinite), (np.isnan(x), np.isfinite(x), np.isinf(x)))
        np.testing.assert_array_equal(number[:-1].astype(np.float32), np.nan_to_num(x[:-1], nan=3, posinf=4))
    np.testing.assert_array_equal(twice, ~np.isnan(x))
    assert (int(largest), float(largest_number), bool(finite)) == (0, 2.0, False)
    np.testing.assert_array_equal(after, np.nextafter(y, x))
