"""Reverse unsigned integers as if they were signed.

IREE 3.13 refuses to reverse tensors of unsigned integers, whose bits do not change:

    reverse(x)  becomes  bitcast(reverse(bitcast(x) : i8)) : u8
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def move_unsigned(module: ir.Module) -> None:
    """Rewrite every `stablehlo.reverse` of unsigned integers."""
    for op in operations_in(module.operation):
        element = element_type(op.operands[0]) if op.name == "stablehlo.reverse" else None
        if isinstance(element, ir.IntegerType) and element.is_unsigned:
            with ir.InsertionPoint(op):
                signless = build.bitcast(op.operands[0], ir.IntegerType.get_signless(element.width))
                copy = op.clone()
                copy.operands[0] = signless
                copy.results[0].set_type(signless.type)
                result = build.bitcast(copy.results[0], element)
            op.results[0].replace_all_uses_with(result)
            op.erase()


PASS = Pass(
    name="move-unsigned",
    summary="reverse unsigned integers as if they were signed",
    description=__doc__,
    run=move_unsigned,
)
