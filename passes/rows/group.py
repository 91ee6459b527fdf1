"""Which tensors elementwise operations and shifts along the leading axis join, and what each reads at which shift."""

from __future__ import annotations

import collections
import heapq
import math
from collections.abc import Collection, Mapping

from sonew_compiled.passes.ir.elementwise import is_elementwise
from sonew_compiled.passes.ir.function import Function
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.shifts import shift_of
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import at_top, owner
from sonew_compiled.passes.rows.vectors import size_of

_SPLATS = ("stablehlo.constant", "stablehlo.broadcast_in_dim")
_HALF_BYTES = 2
_AXES = 2
# Results of 16 bits that are a kernel's without a shift: IREE makes a loop of its own of what reads one.
_SEVERAL = 2


class RowGroup:
    """Matrices of one shape in one function that elementwise operations and shifts join.

    There is a shift among them, or the function gives several of them in 16 bits.

    Attributes:
      rows: the size of their leading axis.
      columns: that of the other.
      operations: those that make a matrix of the group, in order.
      inside: these, and the slices and concatenations that only they read, in order.
      beside: of `inside`, the slices and concatenations.
      reductions: how many there are on the way to each value.
    """

    def __init__(
        self,
        operations: list[ir.Operation],
        inside: list[ir.Operation],
        reductions: Mapping[ir.Value, int],
        stored: Collection[ir.Value],
    ) -> None:
        self.operations = operations
        self._stored = frozenset(stored)
        self.reductions = reductions
        self.inside = dict.fromkeys(inside)
        self.beside = self.inside.keys() - set(operations)
        self.rows, self.columns = shape_of(operations[0].results[0])
        self._places = {op.results[0]: place for place, op in enumerate(operations)}
        self.shifts = {op: shift for op in operations if (shift := shift_of(op)) is not None}
        self._shifted = {op.results[0] for op in self.shifts}

    @classmethod
    def find(cls, function: Function, elements: int) -> list[RowGroup]:
        """The groups of a function whose matrices have at least so many elements."""
        block = [op.operation for op in function.block.operations]
        leader: dict[ir.Value, ir.Value] = {}

        def lead(value: ir.Value) -> ir.Value:
            while (above := leader.setdefault(value, value)) != value:
                leader[value] = leader[above]  # halves the way for the next who asks: there are thousands to a group
                value = above
            return value

        members, shifts = [], []
        for op in block:
            if len(op.results) != 1 or not isinstance(op.results[0].type, ir.RankedTensorType):
                continue
            shape = shape_of(op.results[0])
            if not shape or math.prod(shape) < elements:
                continue
            shift = shift_of(op)
            if shift is None and not is_elementwise(op):
                continue
            shifts += [op] if shift is not None else []
            members.append(op)
            for value in op.operands if shift is None else [shift.source]:
                source = owner(value)
                if shape_of(value) == shape and (source is None or source.name not in _SPLATS):
                    leader[lead(value)] = lead(op.results[0])
        groups, reductions = [], _reductions(block)
        stored = _stored_halves(function)
        halves = collections.Counter(lead(op.results[0]) for op in members if op.results[0] in stored)
        several = [head for head, count in halves.items() if count >= _SEVERAL]
        for head in dict.fromkeys([*(lead(op.results[0]) for op in shifts), *several]):
            joined = [op for op in members if lead(op.results[0]) == head]
            shifting = [op for op in joined if shift_of(op) is not None]
            storing = [op for op in joined if op.results[0] in stored]
            operations = _from_first(shifting or storing, joined, block)
            inside = set(operations)
            for op in reversed(block):
                if op.name in ("stablehlo.slice", "stablehlo.concatenate") and op not in inside:
                    readers = [use.owner.operation for use in op.results[0].uses]
                    if readers and all(each in inside and not is_elementwise(each) for each in readers):
                        inside.add(op)
            groups.append(cls(operations, [op for op in block if op in inside], reductions, stored))
        return groups

    def gives_halves(self, values: Collection[ir.Value]) -> bool:
        """Whether several of these values are the function's results and of 16 bits."""
        return len(self._stored & set(values)) >= _SEVERAL

    def computes(self, value: ir.Value) -> bool:
        """Whether an operation of the group makes it."""
        return value in self._places

    def shifts_of(self, value: ir.Value, known: Collection[ir.Value]) -> dict[ir.Value, set[int]]:
        """At which shifts computing the value reads itself and others, those of `known` not looked into."""
        shifts: dict[ir.Value, set[int]] = {value: {0}}
        # Last first: all that reads a matrix comes before it.
        waiting = [-self._places[value]]
        while waiting:
            op = self.operations[-heapq.heappop(waiting)]
            for operand, shift in self.reads(op):
                if operand not in shifts and operand in self._places and operand not in known:
                    heapq.heappush(waiting, -self._places[operand])
                shifts.setdefault(operand, set()).update(each + shift for each in shifts[op.results[0]])
        return shifts

    def reads(self, op: ir.Operation) -> list[tuple[ir.Value, int]]:
        """What an operation of the group reads, each with the shift at which it does."""
        if op in self.shifts:
            return [(self.shifts[op].source, self.shifts[op].by)]
        return [(operand, 0) for operand in op.operands if shape_of(operand)]

    def computed(self, value: ir.Value, known: Collection[ir.Value]) -> dict[ir.Operation, int]:
        """The operations that compute the value, in order, `known` not looked into; each with at how many shifts."""
        shifts = self.shifts_of(value, known)
        places = sorted(self._places[x] for x in shifts if x in self._places and (x == value or x not in known))
        return {op: len(shifts[op.results[0]]) for op in (self.operations[place] for place in places)}

    def takes_more(self, value: ir.Value, known: Collection[ir.Value], most: float) -> bool:
        """Whether more elementwise operations than `most` compute the value, `known` not looked into."""
        count, seen, waiting = 0, {value}, [value]
        while waiting and count <= most:
            op = self.operations[self._places[waiting.pop()]]
            count += op not in self.shifts
            for operand, _ in self.reads(op):
                if operand in self._places and operand not in known and operand not in seen:
                    seen.add(operand)
                    waiting.append(operand)
        return count > most

    def costs(self, value: ir.Value, known: Collection[ir.Value]) -> list[int]:
        """How often each elementwise operation that computes the value is done: once for each shift."""
        return [times for op, times in self.computed(value, known).items() if op not in self.shifts]


def _stored_halves(function: Function) -> set[ir.Value]:
    """The matrices of 16 bits that the function gives."""
    matrices = [each for each in function.returned if len(shape_of(each)) == _AXES]
    return {each for each in matrices if size_of(element_type(each)) == _HALF_BYTES}


def _from_first(
    begin: list[ir.Operation], operations: list[ir.Operation], block: list[ir.Operation]
) -> list[ir.Operation]:
    """The operations but those that others read before the first of some: what a step makes of its weights first."""
    places = {op: place for place, op in enumerate(block)}
    first = min(places[op] for op in begin)
    kept = dict.fromkeys(operations)
    for op in reversed(operations):
        users = [at_top(use.owner.operation) for use in op.results[0].uses]
        if any(user not in kept and places[user] < first and not _feeds_shift(user) for user in users):
            del kept[op]
    return list(kept)


def _feeds_shift(op: ir.Operation) -> bool:
    """Whether it is one of the slices and concatenations that a shift is made of."""
    return op.name in ("stablehlo.slice", "stablehlo.concatenate")


def _reductions(block: list[ir.Operation]) -> dict[ir.Value, int]:
    """How many reductions there are on the way to each value."""
    found: dict[ir.Value, int] = {}
    for op in block:
        count = max((found.get(each, 0) for each in op.operands), default=0) + (op.name == "stablehlo.reduce")
        found |= dict.fromkeys(op.results, count)
    return found
