"""Compute functions of zeros and infinities that IREE's code for processors and GPUs gives other values there.

IREE 3.13 divides the arguments of `atan2`, so that it is NaN for two zeros or two infinities, and has the wrong sign if
the quotient underflows. Its `cbrt` of an infinity is NaN.

    atan2(y, x)  becomes  a = atan2(abs(y), abs(x)), with 1 for both if both are 0 or infinite, and 0 for the first zero
                          a where x has no sign, else pi - a; with the sign of y
    cbrt(x)      becomes  abs(x) < infinity ? cbrt(x) : x
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def guard_functions(module: ir.Module) -> None:
    """Rewrite every angle and every cubic root."""
    for op in operations_in(module.operation):
        guard = _GUARDS.get(op.name)
        if guard is None or not isinstance(element_type(op.results[0]), ir.FloatType):
            continue
        with ir.InsertionPoint(op):
            result = guard(*op.operands)
        op.results[0].replace_all_uses_with(result)
        op.erase()


def _angle(y: ir.Value, x: ir.Value) -> ir.Value:
    zero, one = build.like(0, y), build.like(1, y)
    rise, run = build.elementwise("abs", y), build.elementwise("abs", x)
    infinite = build.compare("EQ", build.elementwise("minimum", rise, run), build.like(math.inf, y), "FLOAT")
    nothing = build.compare("EQ", build.elementwise("maximum", rise, run), zero, "FLOAT")
    rise = build.select(infinite, one, rise)
    run = build.select(build.elementwise("or", infinite, nothing), one, run)
    angle = build.elementwise("atan2", rise, run)
    turned = build.select(build.has_sign(x), build.elementwise("subtract", build.like(math.pi, y), angle), angle)
    return build.select(build.has_sign(y), build.elementwise("negate", turned), turned)


def _cubic_root(value: ir.Value) -> ir.Value:
    bounded = build.compare("LT", build.elementwise("abs", value), build.like(math.inf, value), "FLOAT")
    return build.select(bounded, build.elementwise("cbrt", value), value)


_GUARDS: Mapping[str, Callable[..., ir.Value]] = {"stablehlo.atan2": _angle, "stablehlo.cbrt": _cubic_root}


PASS = Pass(
    name="guard-functions",
    summary="compute angles of zeros and infinities, and cubic roots of infinities",
    description=__doc__,
    run=guard_functions,
)
