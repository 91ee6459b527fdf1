"""Keep floating-point numbers that become integers within the integer's range.

IREE 3.13 leaves to the machine what a number beyond the range becomes: the smallest integer, or its lowest bits. NaN
becomes a number, too, and bytecode has no conversion to unsigned integers of 8 or 16 bits. XLA gives the nearest
integer of the range, and 0 for NaN. So the conversion sees only numbers in range, and 0 in place of the others.

    convert(x : f32) : u8  becomes  inside = x >= 0 and x < 256
                                    x >= 256 ? 255 : convert(convert(inside ? x : 0) : i32) : u8

The bounds are powers of two, since the largest integers of 32 bits are no floating-point numbers.
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import conversions_to_integers, convert
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, is_half, shape_of
from sonew_compiled.passes.record import Pass

_WORD = 32


def saturate_conversions(module: ir.Module) -> None:
    """Guard every conversion from floating-point numbers to integers."""
    for op in conversions_to_integers(module):
        with ir.InsertionPoint(op):
            result = _saturated(op.operands[0], ir.IntegerType(element_type(op.results[0])))
        op.results[0].replace_all_uses_with(result)
        op.erase()


def _saturated(value: ir.Value, kind: ir.IntegerType) -> ir.Value:
    if is_half(element_type(value)):
        value = convert(value, ir.F32Type.get())
    bits = kind.width if kind.is_unsigned else kind.width - 1
    least = 0 if kind.is_unsigned else -(2**bits)
    above = build.compare("GE", value, build.like(2.0**bits, value), "FLOAT")
    not_below = build.compare("GE", value, build.like(float(least), value), "FLOAT")
    not_above = build.compare("LT", value, build.like(2.0**bits, value), "FLOAT")
    inside = build.select(build.elementwise("and", not_below, not_above), value, build.like(0, value))
    number = convert(inside, kind if kind.width >= _WORD else ir.IntegerType.get_signless(_WORD))
    if kind.width < _WORD:
        number = convert(number, kind)
    number = build.select(above, build.constant(2**bits - 1, kind, shape_of(value)), number)
    if least == 0:
        return number
    below = build.compare("LT", value, build.like(float(least), value), "FLOAT")
    return build.select(below, build.constant(least, kind, shape_of(value)), number)


PASS = Pass(
    name="saturate-conversions",
    summary="keep floating-point numbers that become integers within the integer's range",
    description=__doc__,
    run=saturate_conversions,
)
