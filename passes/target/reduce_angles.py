"""Compute sines, cosines and tangents from angles between -pi/4 and pi/4.

IREE 3.13 divides an angle by pi/2 on processors, rounds down, and subtracts in float32 with one number for pi/2. So the
sine of -1e-6 is off by 4 %, that of -1e-8 has the wrong sign, and beyond 1e8 the result leaves [-1, 1].

    a = abs(x) = k pi/2 + r    with a whole number k, and r from -pi/4 to pi/4
    sin(x)  becomes  sin(r), cos(r), -sin(r) or -cos(r), as k mod 4 is 0, 1, 2 or 3, with the sign of x
    cos(x)  becomes  the same of k + 1, without that sign
    tan(x)  becomes  the quotient of both

Below 2^16, `k` is found in float32, and pi/2 is subtracted in four parts; the products of the first three, of 8 bits
each, are exact. Above, `a` is `m` times a power of 2, and `k` and `r` are the first bits of the product of the integer
`m` and 64 bits of 2/pi, those that are left when the whole turns before them are dropped (Payne and Hanek, Radian
Reduction for Trigonometric Functions, SIGNUM Newsletter 1983). The sine and the cosine of `r` are Taylor polynomials,
with errors below 2^-27. Numbers of float16 and bfloat16 are computed in float32; those of float64 are left alone.
"""

from __future__ import annotations

import math
from fractions import Fraction

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass

_PI = Fraction("3.141592653589793238462643383279502884197169399375105820974944592307816406286209")
_HALF_PI = _PI / 2


def _parts() -> tuple[float, ...]:
    """pi/2 in three parts of 8 bits, and a rest."""
    parts, rest = [], _HALF_PI
    for bits in (7, 15, 23):
        parts.append(Fraction(math.floor(rest * 2**bits), 2**bits))
        rest -= parts[-1]
    return (*map(float, parts), float(rest))


_PARTS = _parts()
# 2/pi in words of 32 bits, after a word of zeros.
_WORDS = tuple(math.floor(2 / _PI * 2 ** (32 * n)) % 2**32 for n in range(7))

_LARGE = 2.0**16
# An angle this small is its own sine and tangent in float32.
_SMALL = 2.0**-12


def reduce_angles(module: ir.Module) -> None:
    """Rewrite every sine, cosine and tangent."""
    for op in operations_in(module.operation):
        if op.name not in ("stablehlo.sine", "stablehlo.cosine", "stablehlo.tan"):
            continue
        element = element_type(op.results[0])
        if isinstance(element, ir.F64Type) or not isinstance(element, ir.FloatType):
            continue
        with ir.InsertionPoint(op):
            result = _computed(op.name, op.operands[0])
        op.results[0].replace_all_uses_with(result)
        op.erase()


def _computed(name: str, given: ir.Value) -> ir.Value:
    x = _convert(given, ir.F32Type.get())
    size = build.elementwise("abs", x)
    near, far = _reduced_near(size), _reduced_far(size)
    is_near = build.compare("LT", size, build.like(_LARGE, x), "FLOAT")
    k, r = (build.select(is_near, *both) for both in zip(near, far, strict=True))
    # The remainder of an infinite angle and of none is none.
    is_finite = build.compare("LT", size, build.like(math.inf, x), "FLOAT")
    r = build.select(is_finite, r, build.like(math.nan, x))
    sine, cosine = _sine(r), _cosine(r)
    below = _turned(build.elementwise("add", k, build.like(1, k)), sine, cosine)
    if name == "stablehlo.cosine":
        return _convert(below, element_type(given))
    found = _turned(k, sine, cosine)
    if name == "stablehlo.tan":
        found = build.elementwise("divide", found, below)
    is_negative = build.compare("LT", x, build.like(0, x), "FLOAT")
    found = build.select(is_negative, build.elementwise("negate", found), found)
    is_small = build.compare("LT", size, build.like(_SMALL, x), "FLOAT")
    return _convert(build.select(is_small, x, found), element_type(given))


def _convert(value: ir.Value, into: ir.Type) -> ir.Value:
    return value if element_type(value) == into else convert(value, into)


def _reduced_near(size: ir.Value) -> tuple[ir.Value, ir.Value]:
    """`k` mod 4 and `r` of angles below 2^16, both in float32."""
    quarters = build.elementwise("multiply", size, build.like(float(1 / _HALF_PI), size))
    k = build.elementwise("floor", build.elementwise("add", quarters, build.like(0.5, size)))
    r = size
    for part in _PARTS:
        r = build.elementwise("subtract", r, build.elementwise("multiply", k, build.like(part, size)))
    turns = build.elementwise("floor", build.elementwise("multiply", k, build.like(0.25, size)))
    return build.elementwise("subtract", k, build.elementwise("multiply", turns, build.like(4, size))), r


def _reduced_far(size: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The same of angles from 2^16 on. `a` is `m 2^e`; bits of 2/pi before the bit `e - 2` only make whole turns."""
    wide = ir.IntegerType.get_unsigned(64)
    bits = build.bitcast(size, build.u32())
    exponent = build.elementwise("shift_right_logical", bits, 23)
    m = build.elementwise("or", build.elementwise("and", bits, 2**23 - 1), 2**23)
    # `e` is the exponent less 150, and a word of zeros comes first.
    start = build.elementwise("subtract", exponent, 150 + 2 - 32)
    word = build.elementwise("shift_right_logical", start, 5)
    shift = _convert(build.elementwise("and", start, 31), wide)
    first, second, third = (_word(word, n, wide) for n in range(3))
    both = build.elementwise("or", build.elementwise("shift_left", first, 32), second)
    left = build.elementwise("subtract", build.like(32, shift), shift)
    window = build.elementwise(
        "or",
        build.elementwise("shift_left", both, shift),
        build.elementwise("shift_right_logical", third, left),
    )
    product = build.elementwise("multiply", _convert(m, wide), window)  # four of its quarters of a turn are 2^64
    rounded = build.elementwise("add", product, build.like(2**61, product))
    k = build.elementwise("shift_right_logical", rounded, 62)
    rest = build.elementwise("subtract", product, build.elementwise("shift_left", k, 62))
    signed = build.bitcast(rest, ir.IntegerType.get_signless(64))
    r = build.elementwise("multiply", _convert(signed, ir.F32Type.get()), build.like(float(_HALF_PI / 2**62), size))
    return _convert(_convert(k, build.u32()), ir.F32Type.get()), r


def _word(index: ir.Value, after: int, into: ir.Type) -> ir.Value:
    """The word of 2/pi so many places after each index, 0 to 4."""
    found = build.like(_WORDS[after], index)
    for n in range(1, len(_WORDS) - 2):
        is_here = build.compare("EQ", index, build.like(n, index), "UNSIGNED")
        found = build.select(is_here, build.like(_WORDS[n + after], index), found)
    return _convert(found, into)


def _turned(quarters: ir.Value, sine: ir.Value, cosine: ir.Value) -> ir.Value:
    """The sine of so many quarters of a turn, 0 to 4, and the angle with this sine and cosine."""

    def is_one_of(*which: int) -> ir.Value:
        found = [build.compare("EQ", quarters, build.like(each, quarters), "FLOAT") for each in which]
        return build.elementwise("or", *found)

    size = build.select(is_one_of(1, 3), cosine, sine)
    return build.select(is_one_of(2, 3), build.elementwise("negate", size), size)


def _sine(r: ir.Value) -> ir.Value:
    # r + r z (-1/3! + z (1/5! - ...))
    z = build.elementwise("multiply", r, r)
    rest = _polynomial(z, [(-1) ** n / math.factorial(2 * n + 1) for n in range(1, 5)])
    return build.elementwise("add", r, build.elementwise("multiply", build.elementwise("multiply", r, z), rest))


def _cosine(r: ir.Value) -> ir.Value:
    z = build.elementwise("multiply", r, r)
    return _polynomial(z, [(-1) ** n / math.factorial(2 * n) for n in range(6)])


def _polynomial(z: ir.Value, coefficients: list[float]) -> ir.Value:
    """The polynomial in `z` with these coefficients, that of the constant first."""
    *others, last = coefficients
    found = build.like(last, z)
    for coefficient in reversed(others):
        found = build.elementwise("add", build.elementwise("multiply", found, z), build.like(coefficient, z))
    return found


PASS = Pass(
    name="reduce-angles",
    summary="compute sines, cosines and tangents of angles up to a quarter of pi",
    description=__doc__,
    run=reduce_angles,
)
