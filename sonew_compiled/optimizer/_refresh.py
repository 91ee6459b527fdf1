"""Preconditioners that are computed once in a number of steps."""

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
    """Says, while an optimizer is traced, that no step is a due one: for counting what the others do."""
    token = _NEVER.set(True)
    try:
        yield
    finally:
        _NEVER.reset(token)


def refreshed(due: jax.Array, make: Callable[[Any, Any], Any], statistics: Any, old: Any) -> Any:
    """`make(statistics, old)` where a step is `due` one, else `old`, which the step then does not pay for.

    Args:
      due: a boolean scalar.
      make: gives a tree of the shapes and dtypes of `old`.
      statistics: a tree of arrays.
      old: what was computed last, a tree of arrays.
    """
    if _NEVER.get():
        return old
    # Zeros from the other branch and a choice after it: where loss scaling chooses once more between the new and the
    # old, IREE 3.13 loses the buffers of a branch that hands the old ones through.
    fresh = jax.lax.cond(due, make, lambda _, old: jax.tree.map(jnp.zeros_like, old), statistics, old)
    return jax.tree.map(lambda new, old: jnp.where(due, new, old), fresh, old)
