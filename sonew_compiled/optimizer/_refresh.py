"""Preconditioners that are computed again only every few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

_NEVER: ContextVar[bool] = ContextVar("_NEVER", default=False)


@contextmanager
def never_due() -> Iterator[None]:
    """A context for tracing an optimizer as if no refresh were due, to count the operations of the other steps."""
    token = _NEVER.set(True)
    try:
        yield
    finally:
        _NEVER.reset(token)


def refreshed(due: jax.Array, make: Callable[[Any, Any], Any], statistics: Any, old: Any) -> Any:
    """`make(statistics, old)` if a refresh is `due`, else `old`, at no cost.

    Args:
      due: a boolean scalar.
      make: returns a tree with the shapes and dtypes of `old`.
      statistics: a tree of arrays.
      old: the result of the last refresh, a tree of arrays.
    """
    if _NEVER.get():
        return old
    # The other branch returns zeros, and a select follows. If the branch returned the old values and loss scaling then
    # selected between new and old once more, IREE 3.13 would lose the branch's buffers.
    fresh = jax.lax.cond(due, make, lambda _, old: jax.tree.map(jnp.zeros_like, old), statistics, old)
    return jax.tree.map(lambda new, old: jnp.where(due, new, old), fresh, old)
