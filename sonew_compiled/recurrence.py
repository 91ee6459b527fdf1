"""The recurrence of each tensor of an optimizer's state from one step to the next, read from its jaxpr.

Every value of the jaxpr is treated as a linear function of the tensors of the state: `nu' = 0.99 nu + 0.01 g^2` has the
factor 0.99 of `nu`. A value that is not linear, or whose factor is not known during tracing, has no factor.

Of an array of 8-bit codes in blocks, the scales are what decays: the array has the factors of its scales, and new
scales have those of the array from which they are made.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.interpreters import partial_eval

from sonew_compiled.contract import DEQUANTIZE, QUANTIZE, STOCHASTICALLY

# Operations that give a value in another shape or dtype and keep its factors.
_MOVES = frozenset(
    {
        *("broadcast_in_dim", "convert_element_type", "copy", "copy_p", "expand_dims", "reshape", "rev", "slice"),
        *("squeeze", "transpose", "optimization_barrier", "reduce_precision"),
    }
)
# The subset that gives the same value if neither shape nor dtype changes.
_COPIES = frozenset({"broadcast_in_dim", "convert_element_type", "copy", "copy_p", "reshape", "optimization_barrier"})
# A value that goes through several selects could have any product of their factors.
_MOST_FACTORS = 16


@dataclass(frozen=True)
class _Value:
    """The facts that are known about a value.

    Attributes:
      source: the input to which it is equal.
      number: the constant to which all of its elements are equal.
      factors: the possible factors of each input in which it is linear.
    """

    source: int | None = None
    number: float | None = None
    factors: Mapping[int, frozenset[float]] = field(default_factory=dict)


_UNKNOWN = _Value()


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """A result of a function as a linear function of its arguments.

    Attributes:
      handed_through: the argument to which it is equal; None if there is none.
      factors: the known factors of each argument; several if a branch chooses.
    """

    handed_through: int | None
    factors: Mapping[int, frozenset[float]]


def recurrences(
    closed: ClosedJaxpr, numbers: Mapping[int, float] = MappingProxyType({}), *, stochastic: bool = False
) -> list[Recurrence]:
    """The recurrence of each result of the jaxpr.

    Args:
      closed: the jaxpr.
      numbers: arguments that are known numbers.
      stochastic: whether scales of codes that are rounded stochastically have factors. The mean of such codes follows
        the array, however coarse the scales are, but not if the array itself is computed in too few bits.
    """
    inputs = [
        _Value(source=index, number=numbers.get(index), factors={index: frozenset({1.0})})
        for index in range(len(closed.jaxpr.invars))
    ]
    return [
        Recurrence(handed_through=value.source, factors=value.factors)
        for value in _results(closed.jaxpr, closed.consts, inputs, stochastic)
    ]


def dependents(closed: ClosedJaxpr, arguments: Iterable[int]) -> list[bool]:
    """For each result of the jaxpr, whether it depends on the value of any of these arguments."""
    wanted = list(arguments)
    count = len(closed.jaxpr.outvars)
    _, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * count)
    if not any(used[argument] for argument in wanted):
        return [False] * count
    found = []
    for index in range(count):
        _, used = partial_eval.dce_jaxpr(closed.jaxpr, [index == other for other in range(count)])
        found.append(any(used[argument] for argument in wanted))
    return found


def _results(jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[_Value], stochastic: bool) -> list[_Value]:
    known: dict[Any, _Value] = dict(zip(jaxpr.invars, inputs, strict=True))
    known |= {var: _constant(value) for var, value in zip(jaxpr.constvars, consts, strict=True)}

    def look(atom: Any) -> _Value:
        return _constant(atom.val) if isinstance(atom, Literal) else known.get(atom, _UNKNOWN)

    for equation in jaxpr.eqns:
        given = [look(atom) for atom in equation.invars]
        known.update(zip(equation.outvars, _applied(equation, given, stochastic), strict=True))
    return [look(atom) for atom in jaxpr.outvars]


def _applied(equation: Any, given: list[_Value], stochastic: bool) -> list[_Value]:
    name = equation.primitive.name
    called = str(equation.params.get("name", ""))
    if called.startswith(DEQUANTIZE):
        return [_Value(factors=given[1].factors)]
    if called.startswith(QUANTIZE):
        seen = stochastic or not called.endswith(STOCHASTICALLY)
        return [_UNKNOWN, _Value(factors=given[0].factors) if seen else _UNKNOWN]
    if name == "cond":
        branches = [_results(each.jaxpr, each.consts, given[1:], stochastic) for each in equation.params["branches"]]
        return [_either(choice) for choice in zip(*branches, strict=True)]
    if name == "select_n":
        return [_either(given[1:])]
    inner = next((equation.params[key] for key in ("jaxpr", "call_jaxpr") if key in equation.params), None)
    if inner is not None and name not in ("scan", "while"):
        jaxpr, consts = (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())
        if len(jaxpr.invars) == len(given) and len(jaxpr.outvars) == len(equation.outvars):
            return _results(jaxpr, consts, given, stochastic)
    if name in _MOVES:
        return [
            _moved(name, value, atom, out)
            for value, atom, out in zip(given, equation.invars, equation.outvars, strict=False)
        ]
    if len(equation.outvars) == 1:
        return [_computed(name, given)]
    return [_UNKNOWN] * len(equation.outvars)


def _moved(name: str, value: _Value, before: Any, after: Any) -> _Value:
    same = name in _COPIES and before.aval.shape == after.aval.shape and before.aval.dtype == after.aval.dtype
    return _Value(source=value.source if same else None, number=value.number, factors=value.factors)


def _computed(name: str, given: list[_Value]) -> _Value:
    if name in ("add", "add_any"):
        return _sum(given[0], given[1], 1.0)
    if name == "sub":
        return _sum(given[0], given[1], -1.0)
    if name == "neg":
        return _scaled(given[0], -1.0)
    if name == "mul":
        if given[0].number is not None:
            return _scaled(given[1], given[0].number)
        if given[1].number is not None:
            return _scaled(given[0], given[1].number)
    if name == "div" and given[1].number:
        return _scaled(given[0], 1.0 / given[1].number)
    return _UNKNOWN


def _constant(value: Any) -> _Value:
    dtype = getattr(value, "dtype", np.dtype(type(value)) if isinstance(value, int | float) else None)
    is_real = dtype is not None and (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, np.integer))
    if not is_real or np.ndim(value):
        return _UNKNOWN
    return _Value(number=float(value))


def _scaled(value: _Value, by: float) -> _Value:
    return _Value(
        number=None if value.number is None else value.number * by,
        factors={key: frozenset(factor * by for factor in factors) for key, factors in value.factors.items()},
    )


def _sum(first: _Value, second: _Value, sign: float) -> _Value:
    second = _scaled(second, sign)
    none = frozenset({0.0})
    factors = {}
    for key in first.factors.keys() | second.factors.keys():
        pairs = itertools.product(first.factors.get(key, none), second.factors.get(key, none))
        factors[key] = frozenset(itertools.islice({one + other for one, other in pairs}, _MOST_FACTORS))
    numbers = (first.number, second.number)
    return _Value(number=None if None in numbers else sum(filter(None, numbers)), factors=factors)


def _either(choice: Sequence[_Value]) -> _Value:
    sources = {value.source for value in choice}
    numbers = {value.number for value in choice}
    factors: dict[int, frozenset[float]] = {}
    for value in choice:
        for key, found in value.factors.items():
            factors[key] = frozenset(itertools.islice(factors.get(key, frozenset()) | found, _MOST_FACTORS))
    return _Value(
        source=sources.pop() if len(sources) == 1 else None,
        number=numbers.pop() if len(numbers) == 1 else None,
        factors=factors,
    )
