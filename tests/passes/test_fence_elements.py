"""Elements of gathers and reversed tensors in what IREE does not compile without `fence-elements`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

STEPS = 40


def test_elements_beside_sums_in_loops(on_iree: Callable[..., list[Any]]) -> None:
    rng = np.random.default_rng(0)
    v, m = (rng.normal(size=shape).astype(np.float32) for shape in ((4,), (4, 4)))
    order = np.array([1, 0, 2, 3], np.int32)

    def elements(v: Any, m: Any, index: Any, order: Any) -> tuple[Any, ...]:
        return (
            jnp.take(v, index, mode="clip") + v.sum(),
            v[::-1][0] + v.sum(),
            lax.cummin(v, reverse=True)[1] + v.sum(),
            jnp.take(m, order, axis=1, mode="clip")[1, 2] * v.max(),
        )

    def last(v: Any, m: Any, order: Any) -> Any:
        def body(carried: Any, index: Any) -> tuple[Any, None]:
            return jnp.tanh(jnp.stack(elements(0.5 * carried + 0.1 * m[0], m, index, order))), None

        return lax.scan(body, v, jnp.arange(STEPS) % 4)[0]

    (got,) = on_iree(last, v, m, order)
    wide = v.astype(np.float64)
    for step in range(STEPS):
        x = 0.5 * wide + 0.1 * m[0]
        total = x.sum()
        wide = np.tanh([x[step % 4] + total, x[3] + total, x[1:].min() + total, m[1, 2] * x.max()])
    np.testing.assert_allclose(got, wide, rtol=1e-4, atol=1e-5)


def test_elements_of_slices_with_steps(on_iree: Callable[..., list[Any]]) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 16)).astype(np.float32)
    order = np.array([3, 1, 2, 0], np.int32)

    def read(x: Any, order: Any) -> tuple[Any, ...]:
        return (
            x[:, ::-2],
            jnp.tanh(x)[::-2, ::-3],
            jnp.take(x[:, 1::3], order, axis=1, mode="clip"),
            jnp.flip(x[:, ::2].T, 0),
            jnp.convolve(x[0, ::2], x[1, 4::-2], mode="same"),
            jax.grad(lambda y: (jnp.sin(y[:, ::-5]) * y[:, :4]).sum())(x),
        )

    (got,) = on_iree(read, x, order)
    wide = x.astype(np.float64)
    gradient = np.zeros_like(wide)
    gradient[:, ::-5] = np.cos(wide[:, ::-5]) * wide[:, :4]
    gradient[:, :4] += np.sin(wide[:, ::-5])
    want = [
        wide[:, ::-2],
        np.tanh(wide)[::-2, ::-3],
        wide[:, 1::3][:, order],
        wide[:, ::2].T[::-1],
        np.convolve(wide[0, ::2], wide[1, 4::-2], mode="same"),
        gradient,
    ]
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
