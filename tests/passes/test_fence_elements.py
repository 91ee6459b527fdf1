"""Numbers made of an element and of a sum, in loops, where IREE without `fence-elements` does not compile them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
