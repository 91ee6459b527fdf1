"""Do arithmetic on integers of 8 and 16 bits in 32 bits.

IREE's bytecode keeps them in registers of 32 bits, and does not wrap a result that overflows before the next operation
reads it: of bytes it halves 200 + 100 to 150 instead of 22. It divides unsigned integers of these widths as if they
were signed. A conversion to 32 bits that wraps the number itself is right in any case.

    divide(x, y) of u8  becomes  t = divide(u32(x), u32(y)); u8(t & 255)
    add(x, y) of i8     becomes  t = add(i32(x), i32(y)); i8((t << 24) >> 24)
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, with_element
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass

_WORD = 32
# Those whose result overflows, and those that read the numbers as such.
_ARITHMETIC = tuple(
    f"stablehlo.{name}"
    for name in (
        "abs",
        "add",
        "divide",
        "maximum",
        "minimum",
        "multiply",
        "negate",
        "remainder",
        "shift_left",
        "subtract",
    )
)
_COMPARE = "stablehlo.compare"
# The bodies of reductions, sorts and scatters compute in the type of their arguments.
_BLOCKS = ("func.func", "stablehlo.case", "stablehlo.if", "stablehlo.while")


def widen_integers(module: ir.Module) -> None:
    """Widen the operands of arithmetic and comparisons of narrow integers, and wrap the results of arithmetic."""
    for op in operations_in(module.operation):
        if op.name not in (*_ARITHMETIC, _COMPARE) or not _is_narrow(element_type(op.operands[0])):
            continue
        if op.parent is None or op.parent.name not in _BLOCKS:
            continue
        narrow = ir.IntegerType(element_type(op.operands[0]))
        wide = build.u32() if narrow.is_unsigned else ir.IntegerType.get_signless(_WORD)
        with ir.InsertionPoint(op):
            operands = [convert(operand, wide) for operand in op.operands]
            copy = op.clone()
            for index, operand in enumerate(operands):
                copy.operands[index] = operand
            if op.name == _COMPARE:
                result = copy.results[0]
            else:
                copy.results[0].set_type(with_element(op.results[0], wide))
                result = convert(_wrapped(copy.results[0], narrow), narrow)
        op.results[0].replace_all_uses_with(result)
        op.erase()


def _is_narrow(element: ir.Type) -> bool:
    return isinstance(element, ir.IntegerType) and element.width in (8, 16)


def _wrapped(value: ir.Value, narrow: ir.IntegerType) -> ir.Value:
    """The numbers of 32 bits as they are in the narrow type."""
    if narrow.is_unsigned:
        return build.elementwise("and", value, 2**narrow.width - 1)
    up = build.elementwise("shift_left", value, _WORD - narrow.width)
    return build.elementwise("shift_right_arithmetic", up, _WORD - narrow.width)


PASS = Pass(
    name="widen-integers",
    summary="do arithmetic on integers of 8 and 16 bits in 32 bits",
    description=__doc__,
    run=widen_integers,
)
