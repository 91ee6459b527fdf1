"""The gradient of a maximum or a minimum over windows, one axis after another.

JAX lowers it to a scatter, for which IREE 3.13 has no lowering if windows overlap. The first maximum of a window in
row-major order is the first of its rows' first maxima. So going back through one axis after another is exact, ties
included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core.primitives import ge_p, select_and_scatter_add_p

from sonew_compiled.rules._rule import rule


class _Axis(NamedTuple):
    """The windows of one axis."""

    axis: int
    window: int
    stride: int


def select_and_scatter_add(
    source: jax.Array,
    operand: jax.Array,
    *,
    select_prim: Any,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> jax.Array:
    """Add each element of `source` at the position of its window's first maximum, or minimum, in `operand`.

    Args:
      source: the elements to scatter, one for each window.
      operand: the array that the windows move over; its shape is the result's.
      select_prim: `ge_p` for the maximum, `le_p` for the minimum.
      window_dimensions: the sizes of the windows, one for each axis.
      window_strides: the steps from one window to the next.
      padding: the numbers of elements before and behind each axis that are never chosen.
    """
    extreme = -jnp.inf if select_prim is ge_p else jnp.inf
    if jnp.issubdtype(operand.dtype, jnp.integer):
        limits = jnp.iinfo(operand.dtype)
        extreme = limits.min if select_prim is ge_p else limits.max
    margins = [(low, high, 0) for low, high in padding]
    values = lax.pad(operand, jnp.asarray(extreme, operand.dtype), margins)
    chosen: list[tuple[_Axis, int, jax.Array]] = []
    axes = [
        _Axis(axis, window, stride)
        for axis, (window, stride) in enumerate(zip(window_dimensions, window_strides, strict=True))
        if window > 1 or stride > 1
    ]
    # The last axis comes first: the first maxima of the rows, and then the first row that has the largest of these.
    for each in reversed(axes):
        size = values.shape[each.axis]
        values, position = _select(values, each, select_prim)
        chosen.append((each, size, position))
    for each, size, position in reversed(chosen):
        source = _scatter(source, position, each, size)
    return lax.slice(
        source,
        [low for low, _ in padding],
        [low + size for (low, _), size in zip(padding, operand.shape, strict=True)],
    )


def _select(values: jax.Array, along: _Axis, select_prim: Any) -> tuple[jax.Array, jax.Array]:
    """The chosen element of each window along an axis, and its position in it."""
    axis, window, stride = along
    windows = (values.shape[axis] - window) // stride + 1

    def at(offset: int) -> jax.Array:
        return lax.slice_in_dim(values, offset, offset + (windows - 1) * stride + 1, stride, axis)

    best = at(0)
    position = jnp.zeros(best.shape, jnp.int32)
    for offset in range(1, window):
        other = at(offset)
        stays = select_prim.bind(best, other)
        best = lax.select(stays, best, other)
        position = lax.select(stays, position, jnp.full(best.shape, offset, jnp.int32))
    return best, position


def _scatter(source: jax.Array, position: jax.Array, along: _Axis, size: int) -> jax.Array:
    """Add each element of `source` to the position of its window along an axis, which gets `size` elements."""
    axis, window, stride = along
    blocks = -(-size // stride)
    # An element is in windows that begin in its own block of `stride` elements, and in a number of blocks before it.
    total = None
    for back in range(-(-window // stride)):
        there = _repeat(_shifted(source, axis, back, blocks, 0), axis, stride, size)
        where = _repeat(_shifted(position, axis, back, blocks, -1), axis, stride, size)
        own = lax.broadcasted_iota(jnp.int32, where.shape, axis) % stride + back * stride
        part = lax.select(where == own, there, jnp.zeros_like(there))
        total = part if total is None else total + part
    assert total is not None
    return total


def _shifted(values: jax.Array, axis: int, by: int, size: int, filling: int) -> jax.Array:
    """The values moved `by` places along an axis, which gets `size` elements."""
    margins = [(0, 0, 0)] * values.ndim
    margins[axis] = (by, size - by - values.shape[axis], 0)
    return lax.pad(values, jnp.asarray(filling, values.dtype), margins)


def _repeat(values: jax.Array, axis: int, times: int, size: int) -> jax.Array:
    """Each element repeated `times` times along an axis, cut to the first `size` elements."""
    if times > 1:
        shape = values.shape
        spread = lax.broadcast_in_dim(
            values,
            (*shape[: axis + 1], times, *shape[axis + 1 :]),
            [dim + (dim > axis) for dim in range(len(shape))],
        )
        values = spread.reshape(*shape[:axis], shape[axis] * times, *shape[axis + 1 :])
    return lax.slice_in_dim(values, 0, size, axis=axis)


RULES = (rule(select_and_scatter_add_p, select_and_scatter_add),)
