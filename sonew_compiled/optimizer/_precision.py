"""In what dtype the statistics will be kept, where passes after tracing make it another than the traced one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax.numpy as jnp

_STORED: ContextVar[str | None] = ContextVar("_STORED", default=None)


@contextmanager
def statistics_dtype(name: str) -> Iterator[None]:
    """Says, while an optimizer is traced, that its statistics will be stored as `name`, such as "bfloat16".

    Edge removal takes its default `gamma` from it: what is a meaningful difference between two stored statistics is
    for their storage to say, not for the registers that the traced program computes in.
    """
    token = _STORED.set(name)
    try:
        yield
    finally:
        _STORED.reset(token)


def statistics_epsilon(computed: jnp.dtype) -> float:
    """The machine epsilon of statistics that are computed in one dtype and stored in that of `statistics_dtype`.

    It is the larger of the two, and that of `computed` where nothing was said.
    """
    stored = _STORED.get()
    epsilon = float(jnp.finfo(computed).eps)
    return epsilon if stored is None else max(epsilon, float(jnp.finfo(stored).eps))
