"""Matrices of one shape that elementwise operations and shifts join, and the stencils of their computation."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

from sonew_compiled.passes.ir.elementwise import is_function
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.shifts import shift_of
from sonew_compiled.passes.ir.types import shape_of

# From this many 16-bit results on, a kernel pays off without a shift: IREE makes a loop for the readers of each.
SEVERAL = 2

# The cost of a function, in additions. It exceeds what may be done again, so that no later kernel does.
_FUNCTION = 64

Stencil: TypeAlias = dict[ir.Value, set[int]]
"""The values that the computation of one row reads, each with the offsets of the rows that are read."""


class RowGroup:
    """Matrices of one shape in one function that elementwise operations and shifts join.

    One of the operations is a shift, or the function returns several of the matrices in 16 bits, or they are
    activations.

    Attributes:
      rows: the size of their leading axis, or of all axes but the last one together.
      columns: the size of the last axis.
      operations: the operations that make a matrix of the group, in order.
      inside: these operations, and the slices and concatenations that only they read, in order.
      beside: the slices and concatenations of `inside`.
      levels: a number for each value; one kernel computes values of one level, and levels in their order.
      shifts: the operations that are shifts, each with its `Shift`.
    """

    def __init__(
        self,
        operations: list[ir.Operation],
        inside: Iterable[ir.Operation],
        levels: Mapping[ir.Value, int],
        stored: Collection[ir.Value],
    ) -> None:
        self.operations = operations
        self._stored = frozenset(stored)
        self.levels = levels
        self.inside = dict.fromkeys(inside)
        self.beside = self.inside.keys() - set(operations)
        *leading, self.columns = shape_of(operations[0].results[0])
        self.rows = math.prod(leading)
        self._places = {op.results[0]: place for place, op in enumerate(operations)}
        self.shifts = {op: shift for op in operations if (shift := shift_of(op)) is not None}

    def gives_halves(self, values: Collection[ir.Value]) -> bool:
        """Whether several of these values are results of the function and of 16 bits."""
        return len(self._stored & set(values)) >= SEVERAL

    def computes(self, value: ir.Value) -> bool:
        """Whether an operation of the group makes the value."""
        return value in self._places

    def stencil(self, value: ir.Value, known: Collection[ir.Value]) -> Stencil:
        """The stencil of one row of the value, the value itself included.

        The values in `known` are read, and the search does not go on to their operands.
        """
        found: Stencil = {value: {0}}
        # Operations are visited last first, so that all readers of a matrix come before it.
        waiting = [-self._places[value]]
        while waiting:
            op = self.operations[-heapq.heappop(waiting)]
            for operand, shift in self.reads(op):
                if operand not in found and operand in self._places and operand not in known:
                    heapq.heappush(waiting, -self._places[operand])
                found.setdefault(operand, set()).update(each + shift for each in found[op.results[0]])
        return found

    def reads(self, op: ir.Operation) -> list[tuple[ir.Value, int]]:
        """The matrices that an operation of the group reads, each with the offset of the row that it reads."""
        if op in self.shifts:
            return [(self.shifts[op].source, self.shifts[op].by)]
        return [(operand, 0) for operand in op.operands if shape_of(operand)]

    def computed(self, value: ir.Value, known: Collection[ir.Value]) -> dict[ir.Operation, int]:
        """The operations that compute the value, in order, each with the number of offsets at which it is computed.

        Operations that compute values in `known` are left out, unless the value is one of them.
        """
        stencil = self.stencil(value, known)
        places = sorted(self._places[x] for x in stencil if x in self._places and (x == value or x not in known))
        return {op: len(stencil[op.results[0]]) for op in (self.operations[place] for place in places)}

    def takes_more(self, value: ir.Value, known: Collection[ir.Value], most: float) -> bool:
        """Whether operations that cost more than `most` compute the value, not counting those of `known` values."""
        count, seen, waiting = 0, {value}, [value]
        while waiting and count <= most:
            op = self.operations[self._places[waiting.pop()]]
            count += 0 if op in self.shifts else _cost(op)
            for operand, _ in self.reads(op):
                if operand in self._places and operand not in known and operand not in seen:
                    seen.add(operand)
                    waiting.append(operand)
        return count > most

    def costs(self, value: ir.Value, known: Collection[ir.Value]) -> list[int]:
        """For each elementwise operation that computes the value, its cost at all offsets at which it is done."""
        return [times * _cost(op) for op, times in self.computed(value, known).items() if op not in self.shifts]


def _cost(op: ir.Operation) -> int:
    if op.name == "stablehlo.convert":
        return 0  # a kernel that rounds each operation is divided as one of float32 is
    return _FUNCTION if is_function(op) else 1
