"""Arithmetic of complex numbers that are pairs of real tensors.

Divisions, magnitudes and roots are scaled first, so that no square is infinite or zero where the result is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of, width_of


class Pair(NamedTuple):
    """The real and the imaginary part of a complex tensor."""

    real: ir.Value
    imag: ir.Value


def each_part(function: Callable[..., ir.Value], *pairs: Pair) -> Pair:
    """The pair of a function's result for the real parts and its result for the imaginary ones."""
    return Pair(*(function(*parts) for parts in zip(*pairs, strict=True)))


def multiply(x: Pair, y: Pair, times: Callable[[ir.Value, ir.Value], ir.Value] | None = None) -> Pair:
    """`x y`; `times` is the product of parts, by default the elementwise one."""
    product = times or _times
    return Pair(
        _minus(product(x.real, y.real), product(x.imag, y.imag)),
        _add(product(x.real, y.imag), product(x.imag, y.real)),
    )


def divide(x: Pair, y: Pair) -> Pair:
    """`x / y`."""
    size = build.elementwise("maximum", *map(_abs, y))
    unit = Pair(_over(y.real, size), _over(y.imag, size))
    square = _add(*(_times(each, each) for each in unit))
    numerator = multiply(x, Pair(unit.real, _negate(unit.imag)))
    return Pair(*(_over(_over(each, square), size) for each in numerator))


def magnitude(x: Pair) -> ir.Value:
    """`|x|`."""
    size = build.elementwise("maximum", *map(_abs, x))
    safe = _where(build.compare("GT", size, build.like(0, size), "FLOAT"), size, build.like(1, size))
    square = _add(*(_times(each, each) for each in (_over(x.real, safe), _over(x.imag, safe))))
    finite = build.compare("LT", size, build.like(float("inf"), size), "FLOAT")
    return _where(finite, _times(size, build.elementwise("sqrt", square)), size)


def sign(x: Pair) -> Pair:
    """`x / |x|`, and 0 of 0."""
    size = magnitude(x)
    safe = _where(_is_zero(size), build.like(1, size), size)
    return Pair(_over(x.real, safe), _over(x.imag, safe))


def exponential(x: Pair) -> Pair:
    """`e^x`."""
    size = build.elementwise("exponential", x.real)
    return Pair(_times(size, build.elementwise("cosine", x.imag)), _times(size, build.elementwise("sine", x.imag)))


def log(x: Pair) -> Pair:
    """The logarithm whose imaginary part is in [-pi, pi]."""
    return Pair(build.elementwise("log", magnitude(x)), build.elementwise("atan2", x.imag, x.real))


def power(x: Pair, y: Pair) -> Pair:
    """`x^y`; of 0 it is 1 where `y` is 0, and 0 elsewhere."""
    zero = build.like(0, x.real)
    empty = build.elementwise("and", _is_zero(x.real), _is_zero(x.imag))
    constant = build.elementwise("and", _is_zero(y.real), _is_zero(y.imag))
    safe = Pair(_where(empty, build.like(1, zero), x.real), x.imag)
    found = exponential(multiply(y, log(safe)))
    at_zero = _where(constant, build.like(1, zero), zero)
    return Pair(_where(empty, at_zero, found.real), _where(empty, zero, found.imag))


def sqrt(x: Pair) -> Pair:
    """The root whose real part is not negative, and whose imaginary part has the sign of the number's."""
    half = build.like(0.5, x.real)
    # Halves are added, because the whole sum may overflow where the root does not.
    larger = build.elementwise("sqrt", _add(_times(magnitude(x), half), _times(_abs(x.real), half)))
    safe = _where(_is_zero(larger), build.like(1, larger), larger)
    smaller = _over(_times(_abs(x.imag), half), safe)
    right = build.compare("GE", x.real, build.like(0, half), "FLOAT")
    imag = _where(right, smaller, larger)
    whole = build.bitcast(x.imag, ir.IntegerType.get_signless(width_of(x.imag.type.element_type)))
    below = build.compare("LT", whole, build.like(0, whole), "SIGNED")  # also of -0, which is on the cut
    return Pair(_where(right, larger, smaller), _where(below, _negate(imag), imag))


def sine(x: Pair) -> Pair:
    """`sin x`."""
    cosh, sinh = _hyperbolic(x.imag)
    return Pair(_times(build.elementwise("sine", x.real), cosh), _times(build.elementwise("cosine", x.real), sinh))


def cosine(x: Pair) -> Pair:
    """`cos x`."""
    cosh, sinh = _hyperbolic(x.imag)
    return Pair(
        _times(build.elementwise("cosine", x.real), cosh), _negate(_times(build.elementwise("sine", x.real), sinh))
    )


def tanh(x: Pair) -> Pair:
    """`(t + i w) / (1 + i t w)`, where t is `tanh` of the real part and w `tan` of the imaginary one."""
    t = build.elementwise("tanh", x.real)
    w = _over(build.elementwise("sine", x.imag), build.elementwise("cosine", x.imag))
    return divide(Pair(t, w), Pair(build.like(1, t), _times(t, w)))


def equal(direction: str, x: Pair, y: Pair) -> ir.Value:
    """Whether both parts are the same, for `EQ`, or one is not, for `NE`."""
    same = [build.compare(direction, a, b, "FLOAT") for a, b in zip(x, y, strict=True)]
    return build.elementwise("and" if direction == "EQ" else "or", *same)


def product(x: Pair, start: Pair, dims: Sequence[int]) -> Pair:
    """The product over axes, and of scalars to start with, in halves: a reduction of two tensors is not for all."""
    for dim in sorted(dims, reverse=True):
        while (n := shape_of(x.real)[dim]) > 1:
            found = multiply(_part_of(x, dim, 0, n // 2), _part_of(x, dim, n // 2, 2 * (n // 2)))
            rest = [_part_of(x, dim, n - 1, n)] if n % 2 else []
            x = each_part(lambda *parts, dim=dim: build.concatenate(parts, dim), found, *rest)
        shape = shape_of(x.real)
        rest_of_shape = [*shape[:dim], *shape[dim + 1 :]]
        if shape[dim]:
            x = each_part(lambda part, to=rest_of_shape: build.reshape(part, to), x)
        else:
            one, zero = (build.constant(each, x.real.type.element_type, rest_of_shape) for each in (1, 0))
            x = Pair(one, zero)
    shape = shape_of(x.real)
    return multiply(x, each_part(lambda part: build.broadcast(part, shape), start))


def _part_of(x: Pair, dim: int, start: int, end: int) -> Pair:
    shape = shape_of(x.real)
    starts, limits = [0] * len(shape), list(shape)
    starts[dim], limits[dim] = start, end
    return each_part(lambda part: build.slice_of(part, starts, limits), x)


def _hyperbolic(x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """`cosh x` and `sinh x`; the latter to full accuracy also where it is small."""
    half = build.like(0.5, x)
    up, down = (build.elementwise("exponential", each) for each in (x, _negate(x)))
    risen, fallen = (build.elementwise("exponential_minus_one", each) for each in (x, _negate(x)))
    return _times(_add(up, down), half), _times(_minus(risen, fallen), half)


def _is_zero(x: ir.Value) -> ir.Value:
    return build.compare("EQ", x, build.like(0, x), "FLOAT")


def _abs(x: ir.Value) -> ir.Value:
    return build.elementwise("abs", x)


def _negate(x: ir.Value) -> ir.Value:
    return build.elementwise("negate", x)


def _add(x: ir.Value, y: ir.Value) -> ir.Value:
    return build.elementwise("add", x, y)


def _minus(x: ir.Value, y: ir.Value) -> ir.Value:
    return build.elementwise("subtract", x, y)


def _times(x: ir.Value, y: ir.Value) -> ir.Value:
    return build.elementwise("multiply", x, y)


def _over(x: ir.Value, y: ir.Value) -> ir.Value:
    return build.elementwise("divide", x, y)


def _where(condition: ir.Value, yes: ir.Value, no: ir.Value) -> ir.Value:
    return build.select(condition, yes, no)
