"""Do 16-bit arithmetic in float32: widen the operands, round the result.

IREE's code for processors omits some roundings of 16-bit arithmetic, and its bytecode has no such arithmetic. The four
basic operations and square roots give the same bits, since float32 has at least 2 p + 2 significant bits for the p of
either type. Reductions accumulate in float32.

Operations that only move values stay in 16 bits, and so do operations with constants in their bodies.
"""

from __future__ import annotations

from sonew_compiled.passes.ir.convert import compute_in_float32
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.operations import CONTRACTIONS, MOVES
from sonew_compiled.passes.ir.types import element_type, has_element, is_half
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def emulate_arithmetic(module: ir.Module) -> None:
    """Make every operation that computes on bfloat16 or float16 tensors compute on float32 ones."""
    for op in operations_in(module.operation):
        tensors = [v for v in (*op.operands, *op.results) if isinstance(v.type, ir.RankedTensorType)]
        touched = any(is_half(element_type(v)) for v in tensors)
        constants = any(inner.name == "stablehlo.constant" for inner in operations_in(op))
        kept = op.name in (*MOVES, *CONTRACTIONS)
        if touched and not (kept or constants or _is_rounding(op) or _in_region(op)):
            compute_in_float32(op)


def _in_region(op: ir.Operation) -> bool:
    """Whether the operation is in the body of another one that is widened as a whole."""
    parent = op.parent
    return parent is not None and parent.name not in MOVES and parent.name not in ("func.func", "builtin.module")


def _is_rounding(op: ir.Operation) -> bool:
    """Whether this is a conversion from or to float32, which every target supports."""
    wide = ir.F32Type.get()
    return op.name == "stablehlo.convert" and (has_element(op.operands[0], wide) or has_element(op.results[0], wide))


PASS = Pass(
    name="emulate-arithmetic",
    summary="do 16-bit arithmetic in float32",
    description=__doc__,
    run=emulate_arithmetic,
)
