"""Which tensors elementwise operations and shifts along the leading axis join, and how shifts cut their rows."""

from __future__ import annotations

import math
from collections.abc import Collection

from sonew_compiled.passes._function import Function, owner, shape_of
from sonew_compiled.passes._mlir import ir

_NAMES = """
    abs add and atan2 bitcast_convert cbrt ceil clamp compare convert cosine divide exponential exponential_minus_one
    floor is_finite log log_plus_one logistic maximum minimum multiply negate not or power remainder round_nearest_afz
    round_nearest_even rsqrt select shift_left shift_right_arithmetic shift_right_logical sign sine sqrt subtract
    tanh xor
"""
_ELEMENTWISE = frozenset(f"stablehlo.{name}" for name in _NAMES.split())
_SPLATS = ("stablehlo.constant", "stablehlo.broadcast_in_dim")
# A shift's edges are at most one row in so many.
_EDGE_SHARE = 4


def is_elementwise(op: ir.Operation) -> bool:
    """Whether each element of the result depends on the same element of each operand alone, or on a scalar."""
    if op.name not in _ELEMENTWISE:
        return False
    shape = shape_of(op.results[0])
    return all(shape_of(operand) in (shape, []) for operand in op.operands)


def is_concatenation(op: ir.Operation, dim: int) -> bool:
    """Whether tensors are put one after the other along this axis."""
    return bool(op.name == "stablehlo.concatenate" and ir.IntegerAttr(op.attributes["dimension"]).value == dim)


def is_slice_of_rows(op: ir.Operation) -> bool:
    """Whether it takes whole rows that follow each other."""
    if op.name != "stablehlo.slice" or set(ir.DenseI64ArrayAttr(op.attributes["strides"])) != {1}:
        return False
    return shape_of(op.results[0])[1:] == shape_of(op.operands[0])[1:]


def sliced_rows(op: ir.Operation) -> tuple[int, int]:
    """The rows that a slice takes, from the first up to the second."""
    start, limit = op.attributes["start_indices"], op.attributes["limit_indices"]
    return ir.DenseI64ArrayAttr(start)[0], ir.DenseI64ArrayAttr(limit)[0]


class RowGroup:
    """Tensors of one shape in one function that elementwise operations and shifts join, with at least one shift.

    Attributes:
      rows: the size of their leading axis.
      operations: those that make a tensor of the group, in order.
      inside: these, and the slices and concatenations that only they read, in order.
    """

    def __init__(self, operations: list[ir.Operation], inside: list[ir.Operation]) -> None:
        self.operations = operations
        self.inside = dict.fromkeys(inside)
        self.rows = shape_of(operations[0].results[0])[0]
        self._members = {op.results[0] for op in operations}

    @classmethod
    def find(cls, function: Function, elements: int) -> list[RowGroup]:
        """The groups of a function whose tensors have at least so many elements."""
        block = [op.operation for op in function.block.operations]
        leader: dict[ir.Value, ir.Value] = {}

        def lead(value: ir.Value) -> ir.Value:
            while leader.setdefault(value, value) != value:
                value = leader[value]
            return value

        members, shifts = [], []
        for op in block:
            if len(op.results) != 1 or not isinstance(op.results[0].type, ir.RankedTensorType):
                continue
            shape = shape_of(op.results[0])
            if not shape or math.prod(shape) < elements:
                continue
            if _is_shift(op):
                shifts.append(op)
            elif not is_elementwise(op):
                continue
            members.append(op)
            for value in map(_source, op.operands):
                source = owner(value)
                if shape_of(value) == shape and (source is None or source.name not in _SPLATS):
                    leader[lead(value)] = lead(op.results[0])
        groups = []
        for head in dict.fromkeys(lead(op.results[0]) for op in shifts):
            operations = [op for op in members if lead(op.results[0]) == head]
            inside = set(operations)
            for op in reversed(block):
                if op.name in ("stablehlo.slice", "stablehlo.concatenate") and op not in inside:
                    readers = [use.owner.operation for use in op.results[0].uses]
                    if readers and all(each in inside and not is_elementwise(each) for each in readers):
                        inside.add(op)
            group = cls(operations, [op for op in block if op in inside])
            if all(is_elementwise(op) or group._is_plain(op) for op in group.inside):
                groups.append(group)
        return groups

    def written(self, recompute: int) -> set[ir.Value]:
        """The tensors that must be there as a whole: the results, and those too dear to compute for each shift.

        What is read through `n` shifts is too dear if `n - 1` times its operations are more than `recompute`.
        """
        chosen = {value for value in self._members if any(use.owner.operation not in self.inside for use in value.uses)}
        shifts: dict[ir.Value, set[int]] = {}
        for op in reversed(self.inside):
            result = op.results[0]
            read = shifts.get(result, set())
            if result in self._members and (
                result in chosen or (len(read) > 1 and (len(read) - 1) * self._operations(result, chosen) > recompute)
            ):
                chosen.add(result)
                read = {0}
            for operand, shift in self.reads(op):
                shifts.setdefault(operand, set()).update(each + shift for each in read)
        return chosen

    def edges(self, written: Collection[ir.Value]) -> tuple[int, int]:
        """How many of the first and of the last rows of what is written depend on the edges of a shift."""
        cuts: dict[ir.Value, set[int]] = {}
        found: set[int] = set()
        for op in self.inside:
            at, here = 0, set()
            if is_concatenation(op, 0):
                for operand in op.operands:
                    here |= {at, *(at + cut for cut in cuts.get(operand, ()))}
                    at += shape_of(operand)[0]
            elif is_slice_of_rows(op):
                start, end = sliced_rows(op)
                here = {cut - start for cut in cuts.get(op.operands[0], ()) if start < cut < end}
            elif is_elementwise(op):
                here = set().union(*(cuts.get(operand, ()) for operand in op.operands))
            here.discard(0)
            if op.results[0] in written:
                found |= here
            else:
                cuts[op.results[0]] = here
        top = max((cut for cut in found if cut <= self.rows // 2), default=0)
        return top, self.rows - min((cut for cut in found if cut > self.rows // 2), default=self.rows)

    def shifts_of(self, value: ir.Value, known: Collection[ir.Value]) -> dict[ir.Value, set[int]]:
        """At which shifts computing the value reads itself and others, those of `known` not looked into."""
        shifts: dict[ir.Value, set[int]] = {value: {0}}
        for op in reversed(self.inside):
            result = op.results[0]
            if result in shifts and (result == value or result not in known):
                for operand, shift in self.reads(op):
                    shifts.setdefault(operand, set()).update(each + shift for each in shifts[result])
        return shifts

    def reads(self, op: ir.Operation) -> list[tuple[ir.Value, int]]:
        """What an inside operation reads for the rows between the edges, each with the shift at which it does."""
        if is_elementwise(op):
            return [(operand, 0) for operand in op.operands if shape_of(operand)]
        if is_slice_of_rows(op):
            return [(op.operands[0], sliced_rows(op)[0])]
        reads, at = [], 0
        if is_concatenation(op, 0):
            for operand in op.operands:
                size = shape_of(operand)[0]
                if _EDGE_SHARE * size >= (_EDGE_SHARE - 1) * self.rows:
                    reads.append((operand, -at))
                at += size
        return reads

    def _is_plain(self, op: ir.Operation) -> bool:
        """Whether it takes whole rows of a tensor of the group, puts such together, or works on few rows."""
        if _EDGE_SHARE * max(shape_of(operand)[0] for operand in op.operands) <= self.rows:
            return True
        if op.name == "stablehlo.slice":
            return is_slice_of_rows(op) and shape_of(op.operands[0])[0] == self.rows
        return _is_shift(op)

    def _operations(self, value: ir.Value, written: Collection[ir.Value]) -> int:
        """How many elementwise operations computing the value takes, from what is written on."""
        seen: set[ir.Operation] = set()
        pending = [value]
        while pending:
            op = owner(pending.pop())
            if op in self.inside and op not in seen:
                seen.add(op)
                pending += [operand for operand, _ in self.reads(op) if operand not in written]
        return sum(map(is_elementwise, seen))


def _is_shift(op: ir.Operation) -> bool:
    if not is_concatenation(op, 0):
        return False
    largest = max(shape_of(operand)[0] for operand in op.operands)
    return _EDGE_SHARE * largest >= (_EDGE_SHARE - 1) * shape_of(op.results[0])[0]


def _source(value: ir.Value) -> ir.Value:
    """What rows are sliced from, in the end."""
    while (op := owner(value)) is not None and is_slice_of_rows(op):
        value = op.operands[0]
    return value
