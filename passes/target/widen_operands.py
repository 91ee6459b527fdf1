"""Widen booleans and unsigned integers in ways that IREE does not fold into products.

IREE 3.13 drops a conversion that widens the operand of a product and reads the narrow operand as a signed number: true
is -1, and a byte of 200 is -56.

    dot_general(convert(i1), w)  becomes  dot_general(select(i1, 1, 0), w)
    dot_general(convert(u8), w)  becomes  dot_general(convert(convert(u8) : u32), w)
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, with_element
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def widen_operands(module: ir.Module) -> None:
    """Rewrite every conversion of booleans, and every one that widens unsigned integers of less than 32 bits.

    None is left out, since IREE moves conversions to products through transposes, reshapes and calls.
    """
    for op in operations_in(module.operation):
        if op.name != "stablehlo.convert":
            continue
        source = element_type(op.operands[0])
        if not isinstance(source, ir.IntegerType):
            continue
        with ir.InsertionPoint(op):
            if source.width == 1:
                one, zero = (build.like(number, op.results[0]) for number in (1, 0))
                op.results[0].replace_all_uses_with(build.select(op.operands[0], one, zero))
                op.erase()
            elif source.is_unsigned and source.width < 32:
                wide = with_element(op.operands[0], build.u32())
                op.operands[0] = ir.Operation.create(
                    "stablehlo.convert", results=[wide], operands=[op.operands[0]]
                ).result


PASS = Pass(
    name="widen-operands",
    summary="widen booleans and unsigned integers in ways that IREE does not fold into products",
    description=__doc__,
    run=widen_operands,
)
