"""Logarithms of numbers next to 1 against NumPy in float64."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

SIZES = np.concatenate([np.logspace(-37, 30, 500), np.linspace(0.1, 0.9, 100)]).astype(np.float32)


@pytest.mark.parametrize("target", ["cpu", "vmvx", "vulkan"])
def test_the_logarithm_of_one_more(target: str, on_iree: Callable[..., list[Any]]) -> None:
    x = np.concatenate([SIZES, -SIZES[SIZES < 1], [0.0, -0.0]]).astype(np.float32)

    def function(x: Any, special: Any, small: Any) -> tuple[Any, ...]:
        return jnp.log1p(x), jax.nn.softplus(small), jnp.log1p(special)

    small = -np.linspace(1, 80, 300, dtype=np.float32)
    special = np.array([np.inf, -1, -2, np.nan], np.float32)
    (found,) = on_iree(function, x, special, small, target=target)
    np.testing.assert_allclose(found[0], np.log1p(x.astype(np.float64)), rtol=6e-7)
    np.testing.assert_array_equal(np.signbit(found[0]), np.signbit(x))
    # Of e^x the error grows with x.
    np.testing.assert_allclose(found[1], np.log1p(np.exp(small.astype(np.float64))), rtol=1e-5)
    np.testing.assert_array_equal(found[2], np.array([np.inf, -np.inf, np.nan, np.nan], np.float32))
