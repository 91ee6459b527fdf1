"""Compute `log(1 + x)` of small numbers by a series.

IREE 3.13 adds 1 and takes the logarithm on Vulkan and Metal. Of an `x` below 2^-24 nothing is left then, and that of
1e-6 is off by 5 %.

    s = x / (2 + x)
    log(1 + x)  becomes  2 s (1 + s^2/3 + s^4/5 + s^6/7 + s^8/9) where abs(x) < 1/4, else log of the sum

The terms left out are below 1e-9 of the result. Numbers of float16 and bfloat16 are computed in float32; those of
float64 are left alone.
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import replace_in_float32
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.record import Pass

_SMALL = 0.25
_TERMS = (9, 7, 5, 3)


def expand_logarithms(module: ir.Module) -> None:
    """Rewrite every `log_plus_one`."""
    replace_in_float32(module, {"stablehlo.log_plus_one": _computed})


def _computed(x: ir.Value) -> ir.Value:
    is_small = build.compare("LT", build.elementwise("abs", x), build.like(_SMALL, x), "FLOAT")
    s = build.elementwise("divide", x, build.elementwise("add", x, build.like(2, x)))
    z = build.elementwise("multiply", s, s)
    series = build.like(0, x)
    for term in _TERMS:
        series = build.elementwise("multiply", build.elementwise("add", series, build.like(1 / term, x)), z)
    twice = build.elementwise("add", s, s)
    near = build.elementwise("add", twice, build.elementwise("multiply", twice, series))
    return build.select(is_small, near, build.elementwise("log", build.elementwise("add", x, build.like(1, x))))


PASS = Pass(
    name="expand-logarithms",
    summary="compute log(1 + x) of small numbers by a series",
    description=__doc__,
    run=expand_logarithms,
)
