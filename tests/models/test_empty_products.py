"""Products over axes of length 0, which crash iree-compile 3.13."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_a_product_over_nothing_is_zero(target: str, on_iree: Callable[..., list[Any]]) -> None:
    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum((x + jnp.zeros((8, 0)) @ jnp.ones((0, 4))) * w)

    def function(w: jax.Array, x: jax.Array) -> Any:
        return jax.value_and_grad(loss)(w, x), jnp.zeros((0, 3)).T @ jnp.zeros((0, 5))

    w, x = np.arange(4, dtype=np.float32), np.ones((8, 4), np.float32)
    ((value, gradient), nothing) = on_iree(function, w, x, target=target)[0]
    assert float(value) == 8 * w.sum()
    np.testing.assert_array_equal(gradient, np.full(4, 8.0))
    np.testing.assert_array_equal(nothing, np.zeros((3, 5)))
