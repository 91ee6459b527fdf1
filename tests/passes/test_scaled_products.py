"""Products of tensors that are scaled by a number to which another tensor is reduced, against NumPy in float64."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

RNG = np.random.default_rng(0)
X, Y, W = (RNG.normal(size=shape).astype(np.float32) for shape in ((4, 2), (5, 4), (2,)))
MANY = RNG.normal(size=(3, 5, 4)).astype(np.float32)


def test_products_of_what_is_scaled_by_a_mean(on_iree: Callable[..., list[Any]]) -> None:
    def function(x: Any, y: Any, w: Any, many: Any) -> dict[str, Any]:
        return {
            "mean": (x * jnp.mean(y)) @ w,
            "norm": jnp.tanh(x / jnp.linalg.norm(y)) @ w,
            "largest": (x - jnp.max(y)) @ w,
            "for each": jax.vmap(lambda y: (x * jnp.mean(y)) @ w)(many),
            "summed": jnp.sum(jnp.tanh(x * jnp.sum(y)) * w, axis=1),
        }

    (got,) = on_iree(function, X, Y, W, MANY)
    x, y, w, many = (each.astype(np.float64) for each in (X, Y, W, MANY))
    wanted = {
        "mean": x * y.mean() @ w,
        "norm": np.tanh(x / np.sqrt((y * y).sum())) @ w,
        "largest": (x - y.max()) @ w,
        "for each": np.stack([x * each.mean() @ w for each in many]),
        "summed": (np.tanh(x * y.sum()) * w).sum(axis=1),
    }
    for name, want in wanted.items():
        np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-6, err_msg=name)
