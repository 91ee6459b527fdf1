"""8-bit Adam: the codes of its state, their error, and its distance from Adam."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew_compiled import optimizer as optimizers
from sonew_compiled.optimizer import _quantize as quantize


@pytest.mark.parametrize("signed", [True, False])
def test_levels_grow_and_codes_find_the_nearest(signed: bool) -> None:
    count = 128 if signed else 256
    levels = np.array([quantize.level(code, signed=signed) for code in range(count)])
    assert (np.diff(levels) > 0).all()
    assert levels[1] == pytest.approx(5.5e-7 if signed else 5.5e-8)
    assert levels[-1] == pytest.approx(1, rel=1e-2)
    rng = np.random.default_rng(0)
    x = (10.0 ** rng.uniform(-9, 0, size=(60, 256))).astype(np.float32)
    x[:, 0] = 1
    x[0, 1:9] = 0
    if signed:
        x *= rng.choice([-1, 1], size=x.shape)
    q = quantize.quantize(jnp.asarray(x), signed=signed)
    back = np.asarray(quantize.dequantize(q, x.shape, signed=signed), np.float64)
    scale = 1 / levels[-1]
    nearest = scale * levels[np.abs(np.abs(x)[..., None] - scale * levels).argmin(-1)]
    if not signed:
        nearest = np.where(x > 0, np.maximum(nearest, scale * levels[1]), 0)
        assert ((back > 0) == (x > 0)).all()
    # The middle of a cell is nearest, except at the border of two decades, whose cells differ in width.
    np.testing.assert_allclose(np.abs(back - x), np.abs(nearest - np.abs(x)), atol=5e-3 * np.abs(x).max())
    decades = 7 if signed else 8
    place = np.clip(np.floor(np.log10(np.maximum(np.abs(x), 1e-30) / scale)) + decades, 0, decades - 1)
    half = scale * 0.45 * 10.0 ** (place - decades + 1) / 2**place
    assert (np.abs(back - x) <= np.maximum(half, scale * levels[1]) * (1 + 1e-5)).all()
    np.testing.assert_allclose(back[:, 0], x[:, 0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (255,), (3, 100), (0,)])
def test_any_shape_is_kept_in_8_bits(shape: tuple[int, ...]) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    q = quantize.quantize(x, signed=True)
    assert jax.tree.map(jnp.shape, q) == jax.tree.map(jnp.shape, quantize.zeros(x))
    assert q.codes.dtype == jnp.uint8
    back = quantize.dequantize(q, shape, signed=True)
    assert back.shape == shape
    np.testing.assert_allclose(back, x, atol=0.01 * float(jnp.max(jnp.abs(x), initial=0)))
    np.testing.assert_array_equal(quantize.dequantize(quantize.zeros(x), shape, signed=False), np.zeros(shape))


def test_adam_8bit_stays_near_adam() -> None:
    params = {"w": jnp.zeros((40, 30))}
    ours, adam = optimizers.adam_8bit(1e-2, b2=0.99), optax.adam(1e-2, b2=0.99)
    state, reference = ours.init(params), adam.init(params)
    rng = np.random.default_rng(0)
    for _ in range(30):
        gradients = {"w": jnp.asarray(rng.normal(size=(40, 30)) * (1 + np.arange(30)), jnp.float32)}
        update, state = ours.update(gradients, state)
        wanted, reference = adam.update(gradients, reference)
    assert np.linalg.norm(update["w"] - wanted["w"]) < 0.05 * np.linalg.norm(wanted["w"])
