"""Negate sums instead of what is summed.

IREE 3.13 computes the sum of a negated tensor, such as the gradient of a mean that is subtracted, by subtractions. Its
code generators for GPUs look for the number that such a reduction starts from, and know none ("failed to get neutral
element for reduction").

    reduce(negate(x), init = 0)      becomes      0 - reduce(x, init = 0)

The bits are the same, those of a sum of zero included. A multiplication of integers by -1 is a negation, too.
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.elementwise import MOVES
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type
from sonew_compiled.passes.ir.uses import Readers, operations_in, owner
from sonew_compiled.passes.record import Pass


def negate_sums(module: ir.Module) -> None:
    """Subtract from zero each `stablehlo.reduce` that adds the elements of a negated tensor, moved or not."""
    for op in operations_in(module.operation):
        if op.name != "stablehlo.reduce" or not _is_sum(op):
            continue
        moves, source = [], owner(op.operands[0])
        while source is not None and source.name in MOVES:
            moves.append(source)
            source = owner(source.operands[0])
        negated = _negated(source)
        if negated is None:
            continue
        with ir.InsertionPoint(op):
            for move in reversed(moves):
                moved = move.clone()
                moved.operands[0] = negated
                negated = moved.results[0]
            readers = Readers(op.results[0])
            op.operands[0] = negated
        with ir.InsertionPoint.after(op):
            readers.redirect(build.elementwise("subtract", build.like(0, op.results[0]), op.results[0]))


def _is_sum(op: ir.Operation) -> bool:
    """Whether it adds the elements of one tensor to zero."""
    body = [each.operation.name for each in op.regions[0].blocks[0].operations]
    # A sum that starts from -0 can be -0.
    return len(op.results) == 1 and body == ["stablehlo.add", "stablehlo.return"] and _number(op.operands[1]) == "0.0"


def _negated(op: ir.Operation | None) -> ir.Value | None:
    """The tensor that the operation negates; None if it does something else."""
    if op is None or op.name not in ("stablehlo.negate", "stablehlo.multiply"):
        return None
    if op.name == "stablehlo.negate":
        return op.operands[0]
    if isinstance(element_type(op.results[0]), ir.IntegerType):
        for factor, other in (op.operands, reversed(op.operands)):
            if _number(factor) == "-1.0":
                return other
    return None


def _number(value: ir.Value) -> str:
    """The number that all elements of a constant are, with the sign of a zero; empty if it is not known."""
    while (op := owner(value)) is not None and op.name in MOVES:
        value = op.operands[0]
    found = splat_of(value)
    return "" if found is None else str(float(found.value))


PASS = Pass(
    name="negate-sums",
    summary="negate sums instead of what is summed",
    description=__doc__,
    run=negate_sums,
)
