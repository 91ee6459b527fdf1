"""Sines, cosines and tangents of small, large and special angles against NumPy in float64."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

SIZES = np.concatenate(
    [
        np.logspace(-40, 8.8, 500),
        np.pi / 4 * np.arange(1, 40),  # next to zeros, to extremes and to the ends of the quadrants
        [0.0, 1.0, 12345.678, 1e5, 1e7, 8e8],
    ]
).astype(np.float32)
ANGLES = np.concatenate([SIZES, -SIZES])
HUGE = np.array([1e10, -1e10, 3e10, 2.0**36, 1e18, -1e25, 3e38], np.float32)


@pytest.mark.parametrize("target", ["cpu", "vmvx", "vulkan"])
def test_angles_of_any_size_are_those_of_float64(target: str, on_iree: Callable[..., list[Any]]) -> None:
    def function(*angles: Any) -> Any:
        return [(jnp.sin(x), jnp.cos(x), jnp.tan(x)) for x in angles]

    (found,) = on_iree(function, ANGLES, HUGE, np.array([np.inf, -np.inf, np.nan], np.float32), target=target)
    ordinary, huge, special = ([np.asarray(each, np.float64) for each in three] for three in found)
    x = ANGLES.astype(np.float64)
    sine, cosine, tangent = ordinary
    rtol = 2e-6 if target == "vulkan" else 1e-6  # next to zeros
    np.testing.assert_allclose(sine, np.sin(x), rtol=rtol, atol=2e-7 if target == "vmvx" else 3e-8)
    np.testing.assert_allclose(cosine, np.cos(x), rtol=1e-6, atol=2e-7)
    is_apart = np.abs(np.cos(x)) > 1e-3
    np.testing.assert_allclose(
        tangent[is_apart], np.tan(x)[is_apart], rtol=2e-3 if target == "vmvx" else 1e-5, atol=1e-7
    )
    if target != "vmvx":
        small = np.abs(ANGLES) < 1e-5
        np.testing.assert_array_equal(sine[small], x[small])
        np.testing.assert_array_equal(np.signbit(sine[small]), np.signbit(x[small]))
        np.testing.assert_allclose(huge[0], np.sin(HUGE.astype(np.float64)), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(huge[1], np.cos(HUGE.astype(np.float64)), rtol=1e-6, atol=1e-7)
    for each in special:
        assert np.isnan(each).all()


def test_the_quotient_of_a_sine_and_its_angle_has_a_gradient(on_iree: Callable[..., list[Any]]) -> None:
    """At -1e-8 it was 2.7e8."""
    t = np.array([-1e-8, -1e-6, -1e-4, 1e-4, 0.3, -0.3, 2.5], np.float32)
    (found,) = on_iree(lambda t: (jnp.sinc(t), jax.grad(lambda t: jnp.sum(jnp.sinc(t)))(t)), t, target="cpu")
    wide = np.pi * t.astype(np.float64)
    np.testing.assert_allclose(found[0], np.sin(wide) / wide, rtol=1e-6)
    expected = np.pi * (np.cos(wide) / wide - np.sin(wide) / wide**2)
    # The gradient is a difference of nearly equal numbers.
    np.testing.assert_allclose(found[1], expected, rtol=1e-4, atol=np.pi * 4e-7 / np.abs(wide).min(initial=1e-3))
    np.testing.assert_allclose(found[1][3:], expected[3:], rtol=1e-2, atol=5e-3)


def test_angles_of_bfloat16_are_rounded_once(on_iree: Callable[..., list[Any]]) -> None:
    x = jnp.asarray(ANGLES[np.abs(ANGLES) < 1e6], jnp.bfloat16)
    (found,) = on_iree(lambda x: jnp.sin(x), np.asarray(x), target="cpu")
    np.testing.assert_allclose(
        np.asarray(found, np.float64), np.sin(np.asarray(x, np.float64)), rtol=2**-8 * 1.01, atol=1e-38
    )
