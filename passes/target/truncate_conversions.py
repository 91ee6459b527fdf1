"""Truncate floating-point numbers before they are converted to integers.

IREE 3.13's bytecode rounds to the nearest integer, so that 2.9 becomes 3. StableHLO rounds towards zero.

    convert(x : f32) : i32  becomes  convert(sign(x) * floor(abs(x)))
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import conversions_to_integers
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.record import Pass


def truncate_conversions(module: ir.Module) -> None:
    """Truncate the operand of every conversion from floating-point numbers to integers."""
    for op in conversions_to_integers(module):
        with ir.InsertionPoint(op):
            value = op.operands[0]
            whole = build.elementwise("floor", build.elementwise("abs", value))
            op.operands[0] = build.elementwise("multiply", build.elementwise("sign", value), whole)


PASS = Pass(
    name="truncate-conversions",
    summary="truncate floating-point numbers before they are converted to integers",
    description=__doc__,
    run=truncate_conversions,
)
