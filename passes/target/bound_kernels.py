"""Cut kernels that would have too many operands.

IREE 3.13 fuses elementwise operations without a bound on the tensors that a kernel reads and writes, and its runtime
takes 32 of them: a sum of functions of 40 tensors compiles and does not load ("binding count 45 > 32", "dispatch
requiring 82 bindings exceeds limit of 64"). Behind a copy (`flow.tensor.clone`) a new kernel begins. It also computes
all numbers that a concatenation joins, such as the norms of a model's layers, in one kernel; each is copied then.
"""

from __future__ import annotations

import math

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.elementwise import FUSED, MOVES
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Option, Pass

# A gather, as `gather-shifts` makes of a shift, is computed where it is read.
_MORE = {
    f"stablehlo.{name}"
    for name in (
        *("gather", "bitcast_convert", "count_leading_zeros", "is_finite", "popcnt", "reduce_precision"),
        *("shift_left", "shift_right_arithmetic", "shift_right_logical"),
    )
}


def bound_kernels(module: ir.Module, *, operands: int) -> None:
    """Copy values so that no chain of elementwise operations reads more than so many tensors.

    Args:
      module: the module, changed in place.
      operands: the most tensors, less than IREE's limit, because a reduction and its readers can share a kernel.
    """
    known = _Operands(operands)
    for op in operations_in(module.operation):
        if _is_fused(op):
            known.bound(op)
        elif op.name == "stablehlo.concatenate":
            known.part(op)


class _Operands:
    """The tensors that the kernel of each value reads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[ir.Value, frozenset[ir.Value]] = {}
        self._copies: dict[ir.Value, ir.Value] = {}

    def bound(self, op: ir.Operation) -> None:
        """Make a fused operation read copies of those operands that need the most tensors, until there are few."""
        found = self._all(op)
        while len(found) > self._most:
            position = max(range(len(op.operands)), key=lambda at: len(self._of(op.operands[at], op)))
            op.operands[position] = self._copied(op.operands[position])
            found = self._all(op)
        self._known[op.results[0]] = found

    def part(self, op: ir.Operation) -> None:
        """Make a concatenation of too many single elements that are computed, or of concatenations, read copies."""
        places: list[tuple[ir.Operation, int]] = []
        waiting = [op]
        while waiting:
            reader = waiting.pop()
            for position, value in enumerate(reader.operands):
                maker = owner(value)
                if maker is not None and maker.name == op.name:
                    waiting.append(maker)
                elif math.prod(shape_of(value)) == 1:
                    place = _before_moves(reader, position)
                    if place[0].operands[place[1]] in self._known:
                        places.append(place)
        # Each of them is written, and needs at least one tensor.
        if 2 * len(places) > self._most:
            for reader, position in places:
                reader.operands[position] = self._copied(reader.operands[position])

    def _all(self, op: ir.Operation) -> frozenset[ir.Value]:
        return frozenset[ir.Value]().union(*(self._of(each, op) for each in op.operands))

    def _of(self, value: ir.Value, reader: ir.Operation) -> frozenset[ir.Value]:
        maker = owner(value)
        if maker is not None and (splat_of(value) is not None or maker.name == "stablehlo.iota"):
            return frozenset()
        # A value from outside a region is in memory.
        if maker is None or maker.block != reader.block:
            return frozenset([value])
        return self._known.get(value, frozenset([value]))

    def _copied(self, value: ir.Value) -> ir.Value:
        if value not in self._copies:
            maker = owner(value)
            assert maker is not None, value  # an argument is a single tensor
            with ir.InsertionPoint.after(maker):
                self._copies[value] = build.clone(value)
        return self._copies[value]


def _before_moves(reader: ir.Operation, position: int) -> tuple[ir.Operation, int]:
    """Where the value of an operand is read before it is moved."""
    while (maker := owner(reader.operands[position])) is not None and maker.name in MOVES:
        reader, position = maker, 0
    return reader, position


def _is_fused(op: ir.Operation) -> bool:
    return op.name in FUSED or op.name in MOVES or op.name in _MORE


PASS = Pass(
    name="bound-kernels",
    summary="cut kernels that would have too many operands",
    description=__doc__,
    run=bound_kernels,
    options=(Option(name="operands", default=24, help="the most tensors that a kernel reads", read=int),),
)
