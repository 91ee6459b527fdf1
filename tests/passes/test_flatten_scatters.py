"""Scatters of windows that IREE without `flatten-scatters` refuses, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

# The table's shape, the starts, the windows' sizes, and the axis of the table that each component is for.
WINDOWS: list[tuple[tuple[int, ...], list[list[int]], tuple[int, ...], tuple[int, ...]]] = [
    ((10,), [[1], [4], [7], [2]], (3,), (0,)),
    ((3,), [[0], [0]], (3,), (0,)),
    ((7, 5), [[1], [4], [5]], (2, 5), (0,)),
    ((7, 5), [[1], [4]], (1, 3), (0,)),
    ((7, 5), [[1], [2]], (7, 2), (1,)),
    ((7, 5, 6), [[1, 2], [4, 0]], (2, 3, 6), (0, 1)),
    ((7, 5, 6), [[2, 1], [0, 4]], (2, 3, 6), (1, 0)),
    ((3, 3, 2), [[0, 0, 1], [0, 0, 0]], (3, 3, 1), (0, 1, 2)),
    ((4, 3), [[], []], (4, 3), ()),
    ((4, 3), [[], []], (2, 3), ()),
]


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_windows_are_added_at_their_places(on_iree: Callable[..., list[Any]], target: str) -> None:
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=shape).astype(np.float32) for shape, *_ in WINDOWS]
    updates = [rng.normal(size=(len(starts), *sizes)).astype(np.float32) for _, starts, sizes, _ in WINDOWS]
    starts = [np.array(each, np.int32) for _, each, *_ in WINDOWS]
    count = len(WINDOWS)

    def added(*arrays: jax.Array) -> list[jax.Array]:
        found = []
        for (shape, _, _, axes), *operands in zip(
            WINDOWS, arrays[:count], arrays[count : 2 * count], arrays[2 * count :], strict=True
        ):
            numbers = lax.ScatterDimensionNumbers(
                update_window_dims=tuple(range(1, len(shape) + 1)),
                inserted_window_dims=(),
                scatter_dims_to_operand_dims=axes,
            )
            found.append(lax.scatter_add(*operands, numbers, mode="clip"))
        return found

    (got,) = on_iree(added, *tables, *starts, *updates, target=target)
    for here, table, update, (_, places, sizes, axes) in zip(got, tables, updates, WINDOWS, strict=True):
        want = table.astype(np.float64)
        for place, values in zip(places, update, strict=True):
            corner = dict(zip(axes, place, strict=True))
            window = tuple(slice(corner.get(axis, 0), corner.get(axis, 0) + size) for axis, size in enumerate(sizes))
            want[window] += values
        np.testing.assert_allclose(here, want, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_crops_at_narrow_indices(on_iree: Callable[..., list[Any]]) -> None:
    """The last elements of a window have indices beyond eight bits."""
    table = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    starts, size = np.array([1, 120, 127], np.int8), 10

    def gradient(table: jax.Array, starts: jax.Array) -> jax.Array:
        def loss(table: jax.Array) -> jax.Array:
            crops = jax.vmap(lambda start: lax.dynamic_slice_in_dim(table, start, size))(starts)
            return jnp.square(crops).sum()

        return jax.grad(loss)(table)

    (got,) = on_iree(gradient, table, starts)
    want = np.zeros(table.shape)
    for start in map(int, starts):
        want[start : start + size] += 2 * table[start : start + size]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
