"""Settings that stay Python values under `optax.inject_hyperparams`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class _Default:
    """The default of a static setting. It is no number, and so optax does not make it an array of its state."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


def static(*names: str) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Keeps the defaults of numeric settings static under `optax.inject_hyperparams`, as if `static_args` named them.

    Args:
      names: the settings, keyword-only arguments of the function.
    """

    def decorate(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        @functools.wraps(function)
        def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
            for name, value in kwargs.items():
                if isinstance(value, _Default):
                    kwargs[name] = value.value
            return function(*args, **kwargs)

        signature = inspect.signature(function)
        parameters = [
            each.replace(default=_Default(each.default)) if each.name in names else each
            for each in signature.parameters.values()
        ]
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return call

    return decorate
