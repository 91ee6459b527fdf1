"""Do 16-bit arithmetic in float32, for a target that has none: widen the operands, round the result.

The rounding is the one that the 16-bit operation has. An addition, subtraction, multiplication, division or square root
gives the same bits, since float32 has more than twice the significant bits of either type and two; elementary functions
are defined no more exactly than that anyway. A reduction accumulates in float32, which StableHLO allows. What only
moves values about stays in 16 bits, and so does an operation whose body has constants, which a reduction's has not.
"""

from __future__ import annotations

from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.operations import MOVES
from sonew_compiled.passes.ir.types import element_type, has_element, with_element
from sonew_compiled.passes.ir.uses import Readers, operations_in
from sonew_compiled.passes.record import Pass


def emulate_arithmetic(module: ir.Module) -> None:
    """Make every operation that computes on bfloat16 or float16 tensors compute on float32 ones."""
    halves = (ir.BF16Type.get(), ir.F16Type.get())
    for op in operations_in(module.operation):
        tensors = [v for v in (*op.operands, *op.results) if isinstance(v.type, ir.RankedTensorType)]
        touched = any(element_type(v) in halves for v in tensors)
        constants = any(inner.name == "stablehlo.constant" for inner in operations_in(op))
        if touched and op.name not in MOVES and not (constants or _is_rounding(op) or _in_region(op)):
            _widen(op, halves)


def _in_region(op: ir.Operation) -> bool:
    """Whether the operation is part of the body of another one that is widened as a whole."""
    parent = op.parent
    return parent is not None and parent.name not in MOVES and parent.name not in ("func.func", "builtin.module")


def _is_rounding(op: ir.Operation) -> bool:
    """Whether this converts from or to float32: that is what there is."""
    wide = ir.F32Type.get()
    return op.name == "stablehlo.convert" and (has_element(op.operands[0], wide) or has_element(op.results[0], wide))


def _widen(op: ir.Operation, halves: tuple[ir.Type, ...]) -> None:
    wide = ir.F32Type.get()
    with ir.InsertionPoint(op):
        for index, operand in enumerate(op.operands):
            if element_type(operand) in halves:
                op.operands[index] = convert(operand, wide)
    for region in op.regions:
        for block in region.blocks:
            for value in (*block.arguments, *(v for inner in block.operations for v in inner.operation.results)):
                if element_type(value) in halves:
                    value.set_type(with_element(value, wide))
    for result in op.results:
        had = element_type(result)
        if had in halves:
            result.set_type(with_element(result, wide))
            readers = Readers(result)
            with ir.InsertionPoint.after(op):
                readers.redirect(convert(result, had))


PASS = Pass(
    name="emulate-arithmetic",
    summary="do 16-bit arithmetic in float32",
    description=__doc__,
    run=emulate_arithmetic,
)
