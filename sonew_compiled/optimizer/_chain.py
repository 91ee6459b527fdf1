"""The chain of a tensor's entries, as shifts in the tensor's own layout.

The sparsity graph lives on the flattened tensor. Flattening by columns would transpose every weight matrix and back. A
shift in the flattened order needs only slices and concatenations of the matrix as it lies in memory, which every
backend lowers and vectorises along the contiguous axis. `Chain` is a whole tensor, `Window` a piece of a chain in the
chain's own order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A tensor seen as a `rows` by `cols` matrix whose entries are chained column by column, down each column.

    Entry `(r, c)` has index `c * rows + r` in the chain. A vector is one column.
    """

    rows: int
    cols: int

    @classmethod
    def of(cls, shape: tuple[int, ...], flatten: str) -> Chain:
        """The chain of a tensor of `shape`; `flatten` is "column" (along the inputs of one output) or "row"."""
        if flatten == "column" and len(shape) >= 2:
            return cls(rows=math.prod(shape[:-1]), cols=shape[-1])
        return cls(rows=math.prod(shape), cols=1)

    @property
    def size(self) -> int:
        return self.rows * self.cols

    def view(self, x: jax.Array) -> jax.Array:
        """`x` as the chain's matrix, shape (rows, cols): a reshape, never a transpose."""
        return x.reshape(self.rows, self.cols)

    def shift(self, x: jax.Array, k: int, fill: float = 0.0) -> jax.Array:
        """`y[j] = x[j + k]` in chain order, `fill` where `j + k` leaves the chain; `k` may be negative."""
        if k == 0:
            return x
        columns, rows = divmod(abs(k), self.rows)
        if k > 0:
            head = _shift_columns(x[rows:], columns, fill)
            tail = _shift_columns(x[:rows], columns + 1, fill)
        else:
            head = _shift_columns(x[self.rows - rows :], -columns - 1, fill)
            tail = _shift_columns(x[: self.rows - rows], -columns, fill)
        return jnp.concatenate([head, tail], axis=0)

    def behind(self, x: jax.Array, k: int) -> jax.Array:
        """`y[j] = x[j - k]` for `k >= 0`, zero before the chain."""
        return self.shift(x, -k)

    def fit(self, x: jax.Array, like: jax.Array) -> jax.Array:
        """`x` for the entries of `like`, which are all of the chain."""
        del like
        return x


@dataclass(frozen=True, kw_only=True)
class Window:
    """A vector that is a piece of a longer chain, and loses `reach` entries with every shift.

    What is left depends on no entry outside the window. So nothing is filled in, and a shift is a slice alone.

    Attributes:
      reach: the longest shift.
    """

    reach: int

    def shift(self, x: jax.Array, k: int, fill: float = 0.0) -> jax.Array:
        """`y[j] = x[j + k]` for the entries with `reach` others after them, `0 <= k <= reach`."""
        del fill
        return x[k : k + x.shape[0] - self.reach]

    def behind(self, x: jax.Array, k: int) -> jax.Array:
        """`y[j] = x[j - k]` for the entries with `reach` others before them, `0 <= k <= reach`."""
        return x[self.reach - k : x.shape[0] - k]

    def fit(self, x: jax.Array, like: jax.Array) -> jax.Array:
        """The first entries of `x`, as many as `like` has; both begin at the same entry of the chain."""
        return x[: like.shape[0]]


def _shift_columns(x: jax.Array, k: int, fill: float) -> jax.Array:
    rows, cols = x.shape
    if k == 0 or rows == 0:
        return x
    edge = jnp.full((rows, min(abs(k), cols)), fill, x.dtype)
    parts = [x[:, k:], edge] if k > 0 else [edge, x[:, : max(cols + k, 0)]]
    return jnp.concatenate(parts, axis=1)
