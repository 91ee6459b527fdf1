"""Widen booleans and unsigned integers in ways that IREE does not fold into products.

IREE 3.13 drops a conversion that widens the operand of a product and reads the narrow operand as a signed number: true
is -1, and a byte of 200 is -56.

    dot_general(convert(i1), w)  becomes  dot_general(select(i1, 1, 0), w)
    dot_general(convert(u8), w)  becomes  dot_general(convert(convert(u8) : u32), w)
    dot_general(u8, u8) : u32    becomes  dot_general(copy(convert(u8) : u32), copy(convert(u8) : u32))
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.operations import CONTRACTIONS
from sonew_compiled.passes.ir.types import element_type
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def widen_operands(module: ir.Module) -> None:
    """Rewrite every conversion of booleans, and every one that widens unsigned integers of less than 32 bits.

    None is left out, since IREE moves conversions to products through transposes, reshapes and calls. A product that
    widens such integers itself is given operands of its result's type.
    """
    for op in operations_in(module.operation):
        if op.name in CONTRACTIONS and _is_narrow(element_type(op.operands[0])):
            element = element_type(op.results[0])
            if element != element_type(op.operands[0]):
                with ir.InsertionPoint(op):
                    for index, operand in enumerate(op.operands):
                        op.operands[index] = build.clone(convert(operand, element))
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
            elif _is_narrow(source):
                op.operands[0] = convert(op.operands[0], build.u32())


def _is_narrow(element: ir.Type) -> bool:
    return isinstance(element, ir.IntegerType) and element.is_unsigned and element.width < 32


PASS = Pass(
    name="widen-operands",
    summary="widen booleans and unsigned integers in ways that IREE does not fold into products",
    description=__doc__,
    run=widen_operands,
)
