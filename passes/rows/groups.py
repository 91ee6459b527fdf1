"""Finding the groups of a function."""

from __future__ import annotations

import collections
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from sonew_compiled.passes.ir.constants import SPLATS
from sonew_compiled.passes.ir.elementwise import is_elementwise, is_function
from sonew_compiled.passes.ir.function import Function
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.shifts import Shift, is_part_of_shift, shift_of
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import at_top, owner
from sonew_compiled.passes.rows.group import SEVERAL, RowGroup
from sonew_compiled.passes.rows.memory import size_of

_HALF_BYTES = 2
_AXES = 2


class Sets:
    """Disjoint sets of values: a union-find structure."""

    def __init__(self) -> None:
        self._parents: dict[ir.Value, ir.Value] = {}

    def root(self, value: ir.Value) -> ir.Value:
        """The value that stands for the set of this one."""
        while (above := self._parents.setdefault(value, value)) != value:
            self._parents[value] = self._parents[above]  # path halving: sets have thousands of values
            value = above
        return value

    def join(self, value: ir.Value, other: ir.Value) -> None:
        """Unite the sets of two values."""
        self._parents[self.root(value)] = self.root(other)


def row_groups(function: Function, elements: int) -> list[RowGroup]:
    """The groups of a function whose matrices have at least `elements` elements."""
    block = [op.operation for op in function.block.operations]
    # A function is no part. Random weights in 16 bits would else be a kernel with the integers that they are made of.
    found = {op: shift for op, shift in members(block, elements).items() if not is_function(op)}
    sets = joined(found)
    stored = _stored_halves(function)
    by_root: dict[ir.Value, list[ir.Operation]] = {}
    for op in found:
        by_root.setdefault(sets.root(op.results[0]), []).append(op)
    shifted = [sets.root(op.results[0]) for op, shift in found.items() if shift is not None]
    halves = collections.Counter(sets.root(op.results[0]) for op in found if op.results[0] in stored)
    several = [root for root, count in halves.items() if count >= SEVERAL]
    reductions = _reductions(block)
    groups = []
    for root in dict.fromkeys([*shifted, *several]):
        mine = by_root[root]
        begin = [op for op in mine if found[op] is not None] or [op for op in mine if op.results[0] in stored]
        operations = _without_preparation(begin, mine, block)
        groups.append(RowGroup(operations, _with_slices(operations, block), reductions, stored))
    return groups


def members(block: Sequence[ir.Operation], elements: int) -> dict[ir.Operation, Shift | None]:
    """The shifts, each with its `Shift`, and the elementwise operations, on at least `elements` elements, in order."""
    found: dict[ir.Operation, Shift | None] = {}
    for op in block:
        if len(op.results) != 1 or not isinstance(op.results[0].type, ir.RankedTensorType):
            continue
        shape = shape_of(op.results[0])
        if not shape or math.prod(shape) < elements:
            continue
        shift = shift_of(op)
        if shift is not None or is_elementwise(op):
            found[op] = shift
    return found


def joined(operations: Mapping[ir.Operation, Shift | None]) -> Sets:
    """The sets of values that operations join: each result with the operands of its shape, splats left out."""
    sets = Sets()
    for op, shift in operations.items():
        for value in op.operands if shift is None else [shift.source]:
            source = owner(value)
            if shape_of(value) == shape_of(op.results[0]) and (source is None or source.name not in SPLATS):
                sets.join(value, op.results[0])
    return sets


def _with_slices(operations: Sequence[ir.Operation], block: Sequence[ir.Operation]) -> list[ir.Operation]:
    """The operations, and the slices and concatenations that only their shifts read, in order."""
    inside = set(operations)
    for op in reversed(block):
        if is_part_of_shift(op) and op not in inside:
            readers = [use.owner.operation for use in op.results[0].uses]
            if readers and all(each in inside and not is_elementwise(each) for each in readers):
                inside.add(op)
    return [op for op in block if op in inside]


def _without_preparation(
    begin: Iterable[ir.Operation], operations: Sequence[ir.Operation], block: Sequence[ir.Operation]
) -> list[ir.Operation]:
    """The operations without those that others read before the first of `begin`.

    The latter prepare a step's weights for its products, long before it updates them.
    """
    places = {op: place for place, op in enumerate(block)}
    first = min(places[op] for op in begin)
    kept = dict.fromkeys(operations)
    for op in reversed(operations):
        users = [at_top(use.owner.operation) for use in op.results[0].uses]
        if any(user not in kept and places[user] < first and not is_part_of_shift(user) for user in users):
            del kept[op]
    return list(kept)


def _stored_halves(function: Function) -> Collection[ir.Value]:
    """The 16-bit matrices that the function returns."""
    matrices = [each for each in function.returned if len(shape_of(each)) == _AXES]
    return {each for each in matrices if size_of(element_type(each)) == _HALF_BYTES}


def _reductions(block: Iterable[ir.Operation]) -> dict[ir.Value, int]:
    """The number of reductions on the way to each value."""
    found: dict[ir.Value, int] = {}
    for op in block:
        count = max((found.get(each, 0) for each in op.operands), default=0) + (op.name == "stablehlo.reduce")
        found |= dict.fromkeys(op.results, count)
    return found
