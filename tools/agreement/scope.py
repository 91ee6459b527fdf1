"""Random programs as sequences of instructions, each of which is traced before it is added."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")
Function = Callable[..., Any]

# Programs stay small, because the search is for wrong numbers and not for slow code.
_LARGEST = 300
_HIGHEST_RANK = 4


@dataclass(frozen=True)
class Value:
    """A value's types: in a batch, and in the batch of one example with which `eval_step` is traced."""

    whole: jax.ShapeDtypeStruct
    single: jax.ShapeDtypeStruct

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in a batch."""
        return tuple(self.whole.shape)

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.whole.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.whole.shape)

    @property
    def steady(self) -> bool:
        """Whether it has the same shape in every batch."""
        return tuple(self.whole.shape) == tuple(self.single.shape)

    def is_(self, kind: str) -> bool:
        """Whether it is of a kind: `float`, `int`, `bool` or `any`."""
        kinds = {"float": jnp.floating, "int": jnp.integer, "bool": jnp.bool_, "any": np.generic}
        return bool(jnp.issubdtype(self.whole.dtype, kinds[kind]))


@dataclass(frozen=True)
class Instruction:
    """A function of earlier values, and the number of its results."""

    function: Function
    operands: tuple[int, ...]
    count: int


class Scope:
    """Values that instructions can read, and the instructions that made them."""

    def __init__(self, rng: np.random.Generator, inputs: Sequence[Value], *, depth: int = 0) -> None:
        self.rng = rng
        self.depth = depth
        self.values = list(inputs)
        self.inputs = len(inputs)
        self.instructions: list[Instruction] = []

    def choice(self, options: Sequence[T]) -> T:
        """A random element of the options."""
        return options[int(self.rng.integers(len(options)))]

    def number(self, low: int, high: int) -> int:
        """A random integer from `low` to `high`."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return bool(self.rng.random() < probability)

    def pick(self, kind: str = "float", *, rank: int = 0, where: Callable[[Value], bool] | None = None) -> int:
        """The place of a random value of a kind with at least a rank; later values are more likely.

        Raises:
          LookupError: there is no such value.
        """
        found = [
            place
            for place, value in enumerate(self.values)
            if value.is_(kind) and value.rank >= rank and value.size and (where is None or where(value))
        ]
        if not found:
            raise LookupError(kind)
        weights = np.linspace(1, 3, len(found))
        return int(self.rng.choice(found, p=weights / weights.sum()))

    def add(self, function: Function, *operands: int) -> int:
        """Adds an instruction, and returns the place of its first result.

        Raises:
          LookupError: it does not trace, or its result is too large.
        """
        read = [self.values[place] for place in operands]
        whole = _traced(function, [each.whole for each in read])
        single = whole if all(each.steady for each in read) else _traced(function, [each.single for each in read])
        if len(whole) != len(single):
            raise LookupError("another number of results")
        made = [Value(a, b) for a, b in zip(whole, single, strict=True)]
        for value in made:
            if value.size > _LARGEST or value.rank > _HIGHEST_RANK or value.rank != len(value.single.shape):
                raise LookupError("too large")
        self.instructions.append(Instruction(function, operands, len(made)))
        self.values += made
        return len(self.values) - len(made)

    def program(self, results: Sequence[int]) -> Function:
        """The instructions so far as a function of the inputs, which returns the values in these places."""
        instructions, inputs, places = list(self.instructions), self.inputs, list(results)

        def run(*arguments: Any) -> list[Any]:
            assert len(arguments) == inputs
            values = list(arguments)
            for each in instructions:
                values += _list(each.function(*(values[place] for place in each.operands)))
            return [values[place] for place in places]

        return run

    def read_for(self, results: Sequence[int]) -> set[int]:
        """The places of the inputs from which the values in these places are computed."""
        first = self.inputs
        makers: dict[int, Instruction] = {}
        for each in self.instructions:
            makers |= dict.fromkeys(range(first, first + each.count), each)
            first += each.count
        found, waiting = set(results), list(results)
        while waiting:
            maker = makers.get(waiting.pop())
            new = [place for place in maker.operands if place not in found] if maker else []
            found.update(new)
            waiting += new
        return {place for place in found if place < self.inputs}

    def unread(self) -> list[int]:
        """The places of the values that nothing reads, in order."""
        read = {place for each in self.instructions for place in each.operands}
        return [place for place in range(self.inputs, len(self.values)) if place not in read]


def _list(results: Any) -> list[Any]:
    return list(results) if isinstance(results, list | tuple) else [results]


def _traced(function: Function, arguments: Sequence[jax.ShapeDtypeStruct]) -> list[jax.ShapeDtypeStruct]:
    try:
        results = jax.eval_shape(lambda *a: _list(function(*a)), *arguments)
    except (TypeError, ValueError, IndexError, NotImplementedError, ZeroDivisionError) as error:
        raise LookupError(str(error)) from None
    for each in results:
        if each.dtype not in (jnp.float32, jnp.int32, jnp.uint32, jnp.bool_):
            raise LookupError(f"a result of dtype {each.dtype}")
    return list(results)
