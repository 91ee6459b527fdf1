"""Expand arithmetic that IREE's bytecode lacks or computes wrongly.

IREE 3.13's bytecode has no sign, tangent, cubic root, bit count and 16-bit constants. Its remainder rounds the quotient
to nearest and not towards zero. It counts leading zeros and shifts 8 and 16 bits as if they were 32. Its comparisons
are wrong for NaN: x == x is true, x >= y is computed as not x < y, not x > y as x <= y, and not x != y is true. The
negations of <, <= and == are right.

    tan(x)       becomes    sin(x) / cos(x)
    sign(x)      becomes    x < 0 ? -1 : x > 0 ? 1 : x
    cbrt(x)      becomes    one Newton step from exp(log(abs(x)) / 3), with the sign of x
    rem(x, y)    becomes    r = rem(x, y); r + sign(x) * abs(y), where r does not have the sign of x
    x != x       becomes    not abs(x) <= infinity
    x >= y       becomes    y <= x
    x > y        becomes    y < x
    x != y       becomes    not x == y
    is_finite(x) becomes    abs(x) < infinity
    popcnt(x)    becomes    sums of the bits in pairs, fours and eights
    c ? x : 0.5  becomes    a select in float32, where x is of 16 bits; so do sorts and paddings
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.convert import compute_in_float32
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, is_half, shape_of, with_element
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Pass

_WORD = 32
_DIRECTION = re.compile("comparison_direction (\\w+)")
_SWAPPED = {"GE": "LE", "GT": "LT"}


def expand_arithmetic(module: ir.Module) -> None:
    """Expand every operation of these kinds."""
    # Backwards, so that what a region holds comes before the operation that is erased together with its regions.
    for op in reversed(operations_in(module.operation)):
        expand = _EXPANSIONS.get(op.name)
        if expand is None:
            continue
        with ir.InsertionPoint(op):
            result = expand(op)
        if result is not None:
            op.results[0].replace_all_uses_with(result)
            op.erase()


def _sign(op: ir.Operation) -> ir.Value | None:
    value = op.operands[0]
    if not isinstance(element_type(value), ir.FloatType):
        return None
    zero = build.like(0, value)
    # Zeros and NaN are neither, and stay what they are.
    positive = build.select(build.compare("GT", value, zero, "FLOAT"), build.like(1, value), value)
    return build.select(build.compare("LT", value, zero, "FLOAT"), build.like(-1, value), positive)


def _tangent(op: ir.Operation) -> ir.Value:
    value = op.operands[0]
    return build.elementwise("divide", build.elementwise("sine", value), build.elementwise("cosine", value))


def _cubic_root(op: ir.Operation) -> ir.Value:
    value = op.operands[0]
    size, zero = build.elementwise("abs", value), build.like(0, value)
    third = build.like(1 / 3, value)
    guess = build.elementwise("exponential", build.elementwise("multiply", build.elementwise("log", size), third))
    other = build.elementwise("divide", size, build.elementwise("multiply", guess, guess))
    step = build.elementwise("multiply", build.elementwise("subtract", guess, other), third)
    root = build.elementwise("subtract", guess, step)
    signed = build.select(build.compare("LT", value, zero, "FLOAT"), build.elementwise("negate", root), root)
    # Zeros, infinities and NaN are their own roots.
    finite = build.select(build.compare("LT", size, build.like(float("inf"), value), "FLOAT"), signed, value)
    return build.select(build.compare("GT", size, zero, "FLOAT"), finite, value)


def _remainder(op: ir.Operation) -> ir.Value | None:
    value, divisor = op.operands
    if not isinstance(element_type(value), ir.FloatType):
        return None
    nearest, zero = build.elementwise("remainder", value, divisor), build.like(0, value)
    size, negative = build.elementwise("abs", divisor), build.compare("LT", value, zero, "FLOAT")
    back = build.select(negative, build.elementwise("negate", size), size)
    below, above = (build.compare(way, nearest, zero, "FLOAT") for way in ("LT", "GT"))
    beyond = build.select(negative, above, below)
    return build.select(beyond, build.elementwise("add", nearest, back), nearest)


def _comparison(op: ir.Operation) -> ir.Value | None:
    left, right = op.operands
    is_total = "compare_type" in op.attributes and "TOTALORDER" in str(op.attributes["compare_type"])
    if is_total or not isinstance(element_type(left), ir.FloatType):
        return None
    direction = _DIRECTION.search(str(op.attributes["comparison_direction"]))
    assert direction is not None, op
    if direction[1] in ("EQ", "GE", "LE", "NE") and _equal(left, right):
        number = _with_infinity(left, "LE")
        return build.elementwise("not", number) if direction[1] == "NE" else number
    if direction[1] == "NE":
        return build.elementwise("not", build.compare("EQ", left, right, "FLOAT"))
    swapped = _SWAPPED.get(direction[1])
    return build.compare(swapped, right, left, "FLOAT") if swapped else None


def _equal(left: ir.Value, right: ir.Value, far: int = 4) -> bool:
    """Whether IREE will find that two values are one: they are computed alike."""
    if left == right:
        return True
    one, other = owner(left), owner(right)
    if one is None or other is None or not far or one.name != other.name or left.type != right.type:
        return False
    if len(one.results) > 1 or len(one.regions) or len(one.operands) != len(other.operands):
        return False
    if _attributes(one) != _attributes(other):
        return False
    return all(_equal(a, b, far - 1) for a, b in zip(one.operands, other.operands, strict=True))


def _attributes(op: ir.Operation) -> dict[str, ir.Attribute]:
    return {name: op.attributes[name] for name in op.attributes}


def _finite(op: ir.Operation) -> ir.Value:
    return _with_infinity(op.operands[0], "LT")


def _with_infinity(value: ir.Value, direction: str) -> ir.Value:
    """A comparison of the size of a number with infinity, in float32 if it is of 16 bits."""
    if is_half(element_type(value)):
        value = build.create("stablehlo.convert", [value], [with_element(value, ir.F32Type.get())]).result
    size = build.elementwise("abs", value)
    return build.compare(direction, size, build.like(float("inf"), size), "FLOAT")


def _bit_count(op: ir.Operation) -> ir.Value | None:
    bits = _word(op.operands[0])
    if bits is None:
        return None
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F)):
        upper = build.elementwise("and", build.elementwise("shift_right_logical", bits, shift), mask)
        bits = build.elementwise("add", build.elementwise("and", bits, mask), upper)
    bits = build.elementwise("shift_right_logical", build.elementwise("multiply", bits, 0x01010101), 24)
    return _narrowed(bits, op)


def _leading_zeros(op: ir.Operation) -> ir.Value | None:
    bits, width = _word(op.operands[0]), element_type(op.operands[0]).width
    if bits is None or width == _WORD:
        return None
    return _narrowed(build.elementwise("subtract", build.elementwise("count_leading_zeros", bits), _WORD - width), op)


def _shift(op: ir.Operation) -> ir.Value | None:
    bits, distance = map(_word, op.operands)
    width = element_type(op.operands[0]).width
    if bits is None or distance is None or width == _WORD:
        return None
    shifted = build.elementwise("shift_right_logical", bits, distance)
    inside = build.compare("LT", distance, build.like(width, distance), "UNSIGNED")
    return _narrowed(build.select(inside, shifted, build.like(0, shifted)), op)


def _widen(op: ir.Operation) -> None:
    """Make an operation that moves 16-bit numbers move float32 ones, and widen the constants of its body."""
    if not any(is_half(element_type(each)) for each in op.results):
        return
    for inner in operations_in(op):
        if inner.name == "stablehlo.constant" and is_half(element_type(inner.results[0])):
            with ir.InsertionPoint(inner):
                number = splat_of(inner.results[0])
                assert number is not None, inner
                wide = build.constant(ir.FloatAttr(number).value, ir.F32Type.get(), shape_of(inner.results[0]))
            inner.results[0].replace_all_uses_with(wide)
            inner.erase()
    compute_in_float32(op)


def _word(value: ir.Value) -> ir.Value | None:
    """An integer extended by zeros to 32 bits; None for wider ones and for booleans."""
    width = element_type(value).width
    if not 1 < width <= _WORD:
        return None
    if width == _WORD:
        return value
    wide = with_element(value, ir.IntegerType.get_unsigned(_WORD))
    return build.elementwise("and", build.create("stablehlo.convert", [value], [wide]).result, (1 << width) - 1)


def _narrowed(bits: ir.Value, op: ir.Operation) -> ir.Value:
    kind = op.results[0].type
    return bits if bits.type == kind else build.create("stablehlo.convert", [bits], [kind]).result


_EXPANSIONS: Mapping[str, Callable[[ir.Operation], ir.Value | None]] = {
    "stablehlo.cbrt": _cubic_root,
    "stablehlo.compare": _comparison,
    "stablehlo.count_leading_zeros": _leading_zeros,
    "stablehlo.is_finite": _finite,
    "stablehlo.pad": _widen,
    "stablehlo.popcnt": _bit_count,
    "stablehlo.remainder": _remainder,
    "stablehlo.select": _widen,
    "stablehlo.shift_right_logical": _shift,
    "stablehlo.sign": _sign,
    "stablehlo.sort": _widen,
    "stablehlo.tan": _tangent,
}


PASS = Pass(
    name="expand-arithmetic",
    summary="expand arithmetic that IREE's bytecode lacks or computes wrongly",
    description=__doc__,
    run=expand_arithmetic,
)
