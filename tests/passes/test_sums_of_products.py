"""A sum of a product over axes that only one of the tensors has is compiled, and is NumPy's."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax


def test_sums_of_products_of_repeated_tensors(on_iree: Callable[..., list[Any]]) -> None:
    rng = np.random.default_rng(0)
    u, v, a, b, c, t = (
        rng.normal(size=shape).astype(np.float32) for shape in ((6,), (5,), (6, 5), (4, 5), (4, 6), (4, 6, 5))
    )

    def sums(u: Any, v: Any, a: Any, b: Any, c: Any, t: Any) -> Any:
        return (
            jnp.sum(v * a),
            jnp.sum(u[:, None] * a),
            jnp.sum(u[:, None] * v),
            jnp.sum(a * t),
            jnp.sum(v * t),
            jnp.sum(b[:, None] * t),
            jnp.sum(b[:, None] * t, (1, 2)),
            jnp.sum(b[:, None] * a),
            jnp.sum(c[:, :, None] * (v * a)),
            jnp.sum(jnp.tanh(v) * jnp.cos(a)) + jnp.sum(v * a[:1]),
            jnp.sum((jnp.tanh(jnp.tile(v, 6).reshape(6, 5)) - jnp.broadcast_to(jnp.abs(v), (6, 5))) * t),
        )

    (got,) = on_iree(sums, u, v, a, b, c, t)
    u, v, a, b, c, t = (each.astype(np.float64) for each in (u, v, a, b, c, t))
    wanted = (
        a.sum(0) @ v,
        u @ a.sum(1),
        u.sum() * v.sum(),
        np.einsum("ij,nij->", a, t),
        t.sum((0, 1)) @ v,
        np.einsum("nj,nij->", b, t),
        np.einsum("nj,nij->n", b, t),
        np.einsum("nj,ij->", b, a),
        np.einsum("ni,j,ij->", c, v, a),
        np.tanh(v) @ np.cos(a).sum(0) + v @ a[0],
        (np.tanh(v) - np.abs(v)) @ t.sum((0, 1)),
    )
    for number, want in zip(got, wanted, strict=True):
        np.testing.assert_allclose(number, want, rtol=1e-4, atol=1e-5)


def test_sums_of_products_of_tensors_that_turn_out_to_be_repeated(on_iree: Callable[..., list[Any]]) -> None:
    rng = np.random.default_rng(0)
    v, m = (rng.normal(size=shape).astype(np.float32) for shape in ((4,), (4, 4)))
    places = np.array([1, 0, 2, 3], np.int32)

    def sums(v: Any, m: Any, places: Any) -> Any:
        rows = jnp.broadcast_to(v, (6, 4))
        return (
            jnp.sum(rows[1:5] * m),
            jnp.sum(lax.dynamic_slice(rows, (places[0], 0), (4, 4)) * m),
            jnp.sum(jnp.take(v[None], places, axis=0, mode="clip") * m),
            jnp.sum(jnp.where((places > 1)[:, None], rows[:4], rows[:4]) * m),
            jnp.sum((v * m).T),
        )

    (got,) = on_iree(sums, v, m, places)
    np.testing.assert_allclose(got, [m.sum(0).astype(np.float64) @ v] * 5, rtol=1e-4, atol=1e-5)
