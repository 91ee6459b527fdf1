"""Compute powers for which IREE's logarithm fails: those of negative numbers, and those with exponent 0.

For processors and GPUs IREE 3.13 computes `x ** y` as `exp(y * log(x))`. That is NaN for every negative `x`, for 0 or
an infinity to the power 0, and for 1 to the power of an infinity.

    n = x < 0 or 1 / x < 0
    s = pow(n ? -x : x, y)                      the logarithm's part
    s = x is 1 or -1, or y is 0 ? 1 : s
    n ? (y odd ? -s : y even or x infinite or 0 ? s : NaN) : s

Positive constants as bases, such as the decays of a bias correction, stay as they are.
"""

from __future__ import annotations

import functools

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Pass


def guard_powers(module: ir.Module) -> None:
    """Rewrite every floating-point power that may be one of these."""
    for op in operations_in(module.operation):
        if op.name != "stablehlo.power" or not isinstance(element_type(op.results[0]), ir.FloatType):
            continue
        base = _number(op.operands[0])
        if base is not None and base > 0 and base != 1:
            continue
        with ir.InsertionPoint(op):
            result = _guarded(*op.operands)
        op.results[0].replace_all_uses_with(result)
        op.erase()


def _guarded(base: ir.Value, exponent: ir.Value) -> ir.Value:
    zero, one = build.like(0, base), build.like(1, base)
    negative = build.has_sign(base)
    size = build.select(negative, build.elementwise("negate", base), base)
    power = build.elementwise("power", size, exponent)
    for is_one in (build.compare("EQ", size, one, "FLOAT"), build.compare("EQ", exponent, zero, "FLOAT")):
        power = build.select(is_one, one, power)
    half = build.elementwise("multiply", exponent, build.like(0.5, exponent))
    whole, even = (build.compare("EQ", build.elementwise("floor", each), each, "FLOAT") for each in (exponent, half))
    # Zeros and infinities have real powers to any exponent, also negative ones.
    bounds = (build.compare("EQ", size, build.like(each, size), "FLOAT") for each in (0.0, float("inf")))
    real = functools.reduce(lambda a, b: build.elementwise("or", a, b), bounds, whole)
    kept = build.select(real, power, build.like(float("nan"), power))
    odd = build.elementwise("and", whole, build.elementwise("not", even))
    signed = build.select(odd, build.elementwise("negate", power), kept)
    return build.select(negative, signed, power)


def _number(value: ir.Value) -> float | None:
    """The number that all elements of a constant are, seen through broadcasts; None if it is not known."""
    op = owner(value)
    while op is not None and op.name in ("stablehlo.broadcast_in_dim", "stablehlo.reshape"):
        value = op.operands[0]
        op = owner(value)
    found = splat_of(value)
    return None if found is None else float(ir.FloatAttr(found).value)


PASS = Pass(
    name="guard-powers",
    summary="compute powers of negative numbers, and powers with exponent 0",
    description=__doc__,
    run=guard_powers,
)
