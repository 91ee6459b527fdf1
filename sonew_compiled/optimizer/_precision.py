"""The dtypes that passes will give an optimizer's state after tracing, and the functions that they leave in float32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from sonew_compiled.contract import IN_FLOAT32
from sonew_compiled.errors import UsageError

_P = ParamSpec("_P")
_R = TypeVar("_R")

_STORED: ContextVar[str | None] = ContextVar("_STORED", default=None)


@contextmanager
def statistics_dtype(name: str) -> Iterator[None]:
    """A context for tracing an optimizer whose statistics will be stored as `name`, such as "bfloat16".

    Edge removal takes its default `gamma` from it. The dtype of the storage, not that of the computation, decides which
    difference between two stored statistics is meaningful.
    """
    token = _STORED.set(name)
    try:
        yield
    finally:
        _STORED.reset(token)


def statistics_epsilon(computed: jnp.dtype) -> float:
    """The machine epsilon of statistics that are computed in one dtype and stored in that of `statistics_dtype`.

    It is the larger of the two dtypes' epsilons. Outside `statistics_dtype` it is that of `computed`.
    """
    stored = _STORED.get()
    epsilon = float(jnp.finfo(computed).eps)
    return epsilon if stored is None else max(epsilon, float(jnp.finfo(stored).eps))


def wants_float32_statistics(optimizer: str, reason: str) -> None:
    """Refuses to keep the statistics in fewer bits.

    Raises:
      UsageError: `statistics_dtype` is narrower than float32.
    """
    stored = _STORED.get()
    if stored is not None and jnp.finfo(stored).bits < 32:
        raise UsageError(
            f"{optimizer} {reason}, which {stored} is too coarse for; give --precision f32, bf16-mixed or f16-mixed"
        )


def in_float32(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Makes `function` a function of the traced module that every precision policy leaves in float32.

    The policy that computes in 16 bits knows it by its name, and rounds only its arguments and results. Iterations that
    depend on a condition number thus run in float32, as in the bfloat16 runs of the papers.
    """

    @functools.wraps(function)
    def renamed(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return function(*args, **kwargs)

    renamed.__name__ = f"{IN_FLOAT32}{function.__name__.lstrip('_')}"
    return jax.jit(renamed)
