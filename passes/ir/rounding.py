"""Rounding to 16 bits by integer arithmetic."""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.mlir import ir


def bf16_of(bits: ir.Value) -> ir.Value:
    """The bfloat16 numbers whose bits are the upper halves of these `ui32` integers."""
    high = build.elementwise("shift_right_logical", bits, 16)
    return build.bitcast(convert(high, ir.IntegerType.get_unsigned(16)), ir.BF16Type.get())


def rounded(value: ir.Value, into: ir.Type) -> ir.Value:
    """`value` rounded to nearest, ties to even, to numbers that the 16-bit type `into` has; they stay float32."""
    bits = build.bitcast(value, build.u32())
    sign = build.elementwise("and", bits, 0x80000000)
    magnitude = build.elementwise("and", bits, 0x7FFFFFFF)
    infinity = build.like(0x7F800000, bits)
    finite = _carried(magnitude, 16) if into == ir.BF16Type.get() else _finite_f16(value, magnitude, infinity)
    nan = build.compare("GT", magnitude, infinity, "UNSIGNED")
    kept = build.select(nan, build.like(0x7FC00000, bits), finite)
    return build.bitcast(build.elementwise("or", kept, sign), ir.F32Type.get())


def _carried(magnitude: ir.Value, cut: int) -> ir.Value:
    """Round the last `cut` bits away: add half of their range, less one if the last bit kept is 0, and let it carry."""
    odd = build.elementwise("and", build.elementwise("shift_right_logical", magnitude, cut), 1)
    half = build.elementwise("add", odd, (1 << (cut - 1)) - 1)
    return build.elementwise("and", build.elementwise("add", magnitude, half), 0xFFFFFFFF << cut & 0xFFFFFFFF)


def _finite_f16(value: ir.Value, magnitude: ir.Value, infinity: ir.Value) -> ir.Value:
    normal = _carried(magnitude, 13)
    too_large = build.compare("GT", normal, build.like(0x477FE000, normal), "UNSIGNED")
    normal = build.select(too_large, infinity, normal)
    # Below 2^-14 the last place of float16 is 2^-24. So is that of float32 between a half and one.
    absolute = build.elementwise("abs", value)
    half = build.like(0.5, absolute)
    subnormal = build.elementwise("subtract", build.elementwise("add", absolute, half), half)
    small = build.compare("LT", magnitude, build.like(0x38800000, magnitude), "UNSIGNED")
    return build.select(small, build.bitcast(subnormal, build.u32()), normal)
