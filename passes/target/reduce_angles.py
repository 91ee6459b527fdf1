"""Compute sines, cosines and tangents from angles between -pi/4 and pi/4.

IREE 3.13 divides an angle by pi/2 on processors, rounds down, and subtracts in float32 with one number for pi/2. So the
sine of -1e-6 is off by 4 %, that of -1e-8 has the wrong sign, and beyond 1e8 the result leaves [-1, 1]. A driver for
Vulkan may do no better: its sine may be off by 2^-11 between -pi and pi, and by anything beyond.

    a = abs(x) = k pi/2 + r    with a whole number k, and r from -pi/4 to pi/4
    sin(x)  becomes  sin(r), cos(r), -sin(r) or -cos(r), as k mod 4 is 0, 1, 2 or 3, with the sign of x
    cos(x)  becomes  the same of k + 1, without that sign
    tan(x)  becomes  the quotient of both

Below 2^16, `k` is found in float32, and pi/2 is subtracted in four parts; the products of the first three, of 8 bits
each, are exact. Above, `a` is `m` times a power of 2, and `k` and `r` are the first bits of the product of the integer
`m` and 64 bits of 2/pi, those that are left when the whole turns before them are dropped (Payne and Hanek, Radian
Reduction for Trigonometric Functions, SIGNUM Newsletter 1983). All integers are words of 32 bits, since many Vulkan
devices have no larger ones. The sine and the cosine of `r` are Taylor polynomials,
with errors below 2^-27. Numbers of float16 and bfloat16 are computed in float32; those of float64 are left alone.
"""

from __future__ import annotations

import functools
import itertools
import math
from fractions import Fraction

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import convert, replace_in_float32
from sonew_compiled.passes.ir.mlir import ir
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
    names = ("stablehlo.sine", "stablehlo.cosine", "stablehlo.tan")
    replace_in_float32(module, {name: functools.partial(_computed, name) for name in names})


def _computed(name: str, x: ir.Value) -> ir.Value:
    size = build.elementwise("abs", x)
    near, far = _reduced_near(size), _reduced_far(size)
    is_near = build.compare("LT", size, build.like(_LARGE, x), "FLOAT")
    k, r = (build.select(is_near, *both) for both in zip(near, far, strict=True))
    # The remainder of an infinite angle and of none is none.
    is_finite = build.compare("LT", size, build.like(math.inf, x), "FLOAT")
    r = build.select(is_finite, r, build.like(math.nan, x))
    sine, cosine = _sine(r), _cosine(r)

    def below() -> ir.Value:
        return _turned(build.elementwise("add", k, build.like(1, k)), sine, cosine)

    if name == "stablehlo.cosine":
        return below()
    found = _turned(k, sine, cosine)
    if name == "stablehlo.tan":
        found = build.elementwise("divide", found, below())
    is_negative = build.compare("LT", x, build.like(0, x), "FLOAT")
    found = build.select(is_negative, build.elementwise("negate", found), found)
    is_small = build.compare("LT", size, build.like(_SMALL, x), "FLOAT")
    return build.select(is_small, x, found)


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
    bits = build.bitcast(size, build.u32())
    exponent = build.elementwise("shift_right_logical", bits, 23)
    m = build.elementwise("or", build.elementwise("and", bits, 2**23 - 1), 2**23)
    # `e` is the exponent less 150, and a word of zeros comes first.
    start = build.elementwise("subtract", exponent, 150 + 2 - 32)
    word = build.elementwise("shift_right_logical", start, 5)
    shift = build.elementwise("and", start, 31)
    words = [_word(word, n) for n in range(3)]
    high, low = (_shifted(*pair, shift) for pair in itertools.pairwise(words))
    # The product in two words; four of its quarters of a turn are 2^64.
    above = build.elementwise("add", build.elementwise("multiply", m, high), _upper_word(m, low))
    below = build.elementwise("multiply", m, low)
    k = build.elementwise("shift_right_logical", build.elementwise("add", above, 2**29), 30)
    above = build.elementwise("subtract", above, build.elementwise("shift_left", k, 30))
    zero = build.like(0, below)
    is_negative = build.compare(
        "EQ", build.elementwise("shift_right_logical", above, 31), build.like(1, above), "UNSIGNED"
    )
    borrow = build.select(build.compare("NE", below, zero, "UNSIGNED"), build.like(1, below), zero)
    negated = build.elementwise("subtract", build.elementwise("subtract", zero, above), borrow)
    above = build.select(is_negative, negated, above)
    below = build.select(is_negative, build.elementwise("subtract", zero, below), below)
    r = build.elementwise(
        "add",
        build.elementwise("multiply", _number(above), build.like(float(_HALF_PI / 2**30), size)),
        build.elementwise("multiply", _number(below), build.like(float(_HALF_PI / 2**62), size)),
    )
    return _small_number(k), build.select(is_negative, build.elementwise("negate", r), r)


def _word(index: ir.Value, after: int) -> ir.Value:
    """The word of 2/pi so many places after each index, 0 to 4."""
    found = build.like(_WORDS[after], index)
    for n in range(1, len(_WORDS) - 2):
        is_here = build.compare("EQ", index, build.like(n, index), "UNSIGNED")
        found = build.select(is_here, build.like(_WORDS[n + after], index), found)
    return found


def _shifted(word: ir.Value, after: ir.Value, shift: ir.Value) -> ir.Value:
    """The word that begins so many bits, 0 to 31, after the start of the first of two."""
    left = build.elementwise("subtract", build.like(31, shift), shift)
    rest = build.elementwise("shift_right_logical", build.elementwise("shift_right_logical", after, 1), left)
    return build.elementwise("or", build.elementwise("shift_left", word, shift), rest)


def _upper_word(x: ir.Value, y: ir.Value) -> ir.Value:
    """The upper word of the product of numbers of one word each, the first of at most 24 bits."""
    (x1, x0), (y1, y0) = _halves(x), _halves(y)
    low = build.elementwise("shift_right_logical", build.elementwise("multiply", x0, y0), 16)
    (one, left) = _halves(build.elementwise("add", build.elementwise("multiply", x1, y0), low))
    other = build.elementwise("add", build.elementwise("multiply", x0, y1), left)
    above = build.elementwise("add", build.elementwise("multiply", x1, y1), one)
    return build.elementwise("add", above, build.elementwise("shift_right_logical", other, 16))


def _halves(word: ir.Value) -> tuple[ir.Value, ir.Value]:
    return build.elementwise("shift_right_logical", word, 16), build.elementwise("and", word, 2**16 - 1)


def _number(word: ir.Value) -> ir.Value:
    """A word as a number in float32, rounded once."""
    upper, lower = map(_small_number, _halves(word))
    return build.elementwise("add", build.elementwise("multiply", upper, build.like(2.0**16, upper)), lower)


def _small_number(word: ir.Value) -> ir.Value:
    """A word without its highest bit as a number in float32."""
    return convert(build.bitcast(word, ir.IntegerType.get_signless(32)), ir.F32Type.get())


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
