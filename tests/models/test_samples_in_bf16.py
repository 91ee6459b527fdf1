"""Samples within a loss under `bf16-pure`: finite, and of the right distribution."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

DRAWS = 100_000
# The standard deviation of each.
SAMPLERS: dict[str, tuple[Callable[..., jax.Array], float]] = {
    "uniform": (lambda key, shape: jax.random.uniform(key, shape), 12**-0.5),
    "normal": (lambda key, shape: jax.random.normal(key, shape), 1.0),
    "exponential": (lambda key, shape: jax.random.exponential(key, shape), 1.0),
    "gumbel": (lambda key, shape: jax.random.gumbel(key, shape), np.pi / 6**0.5),
    "laplace": (lambda key, shape: jax.random.laplace(key, shape), 2**0.5),
    "logistic": (lambda key, shape: jax.random.logistic(key, shape), np.pi / 3**0.5),
    "truncated_normal": (lambda key, shape: jax.random.truncated_normal(key, -1.0, 1.0, shape), 0.53956),
}


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_samples_are_finite_and_of_their_distribution(target: str, on_iree: Callable[..., list[Any]]) -> None:
    """A uniform number that is rounded to 1 made one of 500 normal ones infinite."""

    def function(scale: jax.Array) -> dict[str, jax.Array]:
        keys = jax.random.split(jax.random.key(7, impl="threefry2x32"), len(SAMPLERS))
        return {
            name: scale * draw(key, (DRAWS,)) for key, (name, (draw, _)) in zip(keys, SAMPLERS.items(), strict=True)
        }

    (found,) = on_iree(function, np.ones(1, np.float32), target=target, precision="bf16-pure")
    for name, (_, deviation) in SAMPLERS.items():
        draws = np.asarray(found[name], np.float64)
        assert np.isfinite(draws).all(), name
        assert np.std(draws) == pytest.approx(deviation, rel=0.02), name
    assert np.asarray(found["uniform"]).max() < 1


def test_functions_of_bits_beside_others_compile(on_iree: Callable[..., list[Any]]) -> None:
    """They call functions of their own, which a loss may call too."""

    def function(x: jax.Array) -> tuple[jax.Array, ...]:
        mantissa, exponent = jnp.frexp(x)
        return jnp.ldexp(x, 2), mantissa, exponent, jax.nn.relu(x)

    x = np.array([-1.5, 0.75, 3.0, 0.0], np.float32)
    (found,) = on_iree(function, x, target="cpu", precision="bf16-pure")
    for one, other in zip(found, (4 * x, *np.frexp(x), np.maximum(x, 0)), strict=True):
        np.testing.assert_array_equal(np.asarray(one), other)
