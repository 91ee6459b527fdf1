"""Operations that are like those of a pass's pattern, and are not to be taken for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax


def test_what_a_model_pads_with_is_summed(on_iree: Callable[..., list[Any]]) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((128, 64), (64, 128)))

    def sums(x: Any, w: Any) -> tuple[Any, ...]:
        y = jnp.tanh(x @ w - 9)
        shifted = x + jnp.concatenate([x[1:], jnp.zeros((1, 64), jnp.float32)])
        return (
            jnp.max(jnp.pad(y, ((0, 1), (0, 0)))),
            jnp.sum(jnp.pad(shifted, 1, constant_values=1)),
            jnp.sum(lax.pad(shifted, np.float32(0), ((-3, 0, 0), (0, 0, 0)))),
        )

    (got,) = on_iree(sums, x, w)
    wide = x.astype(np.float64)
    shifted = wide + np.concatenate([wide[1:], np.zeros((1, 64))])
    want = [max(0, np.tanh(wide @ w - 9).max()), shifted.sum() + 2 * 130 + 2 * 64, shifted[3:].sum()]
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_the_largest_of_numbers_and_none(target: str, on_iree: Callable[..., list[Any]]) -> None:
    x = np.array([1, np.nan, 3, 2, np.nan, 5, -1, 0], np.float32)
    (got,) = on_iree(lambda x: lax.top_k(x, 4), x, target=target)
    want = lax.top_k(x, 4)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


def test_complex_numbers_that_are_computed_again(on_iree: Callable[..., list[Any]]) -> None:
    x, w = np.linspace(0.1, 1, 4, dtype=np.float32), np.linspace(-1, 2, 4, dtype=np.float32)

    def gradient(x: Any, w: Any) -> Any:
        block = jax.checkpoint(lambda z, x: jnp.abs(z * z + x) ** 2)
        return jax.grad(lambda w: jnp.sum(block(lax.complex(w, x), x)))(w)

    (got,) = on_iree(gradient, x, w)
    # |(w + ix)^2 + x|^2 = (w^2 - x^2 + x)^2 + 4 w^2 x^2
    a, b = x.astype(np.float64), w.astype(np.float64)
    np.testing.assert_allclose(got, 4 * b * (b**2 - a**2 + a) + 8 * b * a**2, rtol=1e-5, atol=1e-6)


def test_integers_in_limits(on_iree: Callable[..., list[Any]]) -> None:
    t = np.arange(-1000, 1048, dtype=np.int32).reshape(64, 32)
    (got,) = on_iree(lambda t: lax.clamp(0, jnp.concatenate([t[1:], jnp.zeros((1, 32), jnp.int32)]), 9), t)
    np.testing.assert_array_equal(got, np.clip(np.concatenate([t[1:], np.zeros((1, 32), np.int32)]), 0, 9))
