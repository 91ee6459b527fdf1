"""Elementwise operations of StableHLO, and the operations of `arith` and `math` that compute them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, is_float, is_half, shape_of, width_of
from sonew_compiled.passes.ir.uses import owner

ARITHMETIC = {
    "add": ("arith.addf", "arith.addi"),
    "subtract": ("arith.subf", "arith.subi"),
    "multiply": ("arith.mulf", "arith.muli"),
    "divide": ("arith.divf", ""),
    "maximum": ("arith.maximumf", ""),
    "minimum": ("arith.minimumf", ""),
    "abs": ("math.absf", ""),
    "negate": ("arith.negf", ""),
    "sqrt": ("math.sqrt", ""),
    "rsqrt": ("math.rsqrt", ""),
    "and": ("", "arith.andi"),
    "or": ("", "arith.ori"),
    "xor": ("", "arith.xori"),
    "shift_left": ("", "arith.shli"),
    "shift_right_logical": ("", "arith.shrui"),
    "shift_right_arithmetic": ("", "arith.shrsi"),
}
"""The operations on floating point and on integers, by StableHLO's operation; empty where there is none."""

FUNCTIONS = {
    "exponential": "math.exp",
    "exponential_minus_one": "math.expm1",
    "log": "math.log",
    "log_plus_one": "math.log1p",
    "tanh": "math.tanh",
}
"""The functions that IREE approximates by polynomials in float32, by StableHLO's operation."""

# Operations that take more than one operation of `arith`, or whose types differ.
_OTHERS = ("not", "select", "compare", "convert", "bitcast_convert", "is_finite")

FUSED = frozenset(
    f"stablehlo.{name}"
    for name in (
        *("abs", "cbrt", "ceil", "convert", "cosine", "exponential", "exponential_minus_one", "floor", "log"),
        *("log_plus_one", "logistic", "negate", "round_nearest_afz", "round_nearest_even", "rsqrt", "sign", "sine"),
        *("sqrt", "tan", "tanh", "add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "atan2"),
        *("remainder", "compare", "select", "clamp", "and", "or", "xor", "not"),
    )
)
"""The elementwise operations that IREE computes in the kernel that reads their results."""

MOVES = ("stablehlo.broadcast_in_dim", "stablehlo.reshape", "stablehlo.slice", "stablehlo.transpose")
"""The operations of one tensor that only move its elements, which IREE computes there as well."""


def is_function(op: ir.Operation) -> bool:
    """Whether it is one of `FUNCTIONS`, on float32 or 16-bit floats."""
    kind = element_type(op.results[0]) if len(op.results) == 1 else None
    is_named = op.name.removeprefix("stablehlo.") in FUNCTIONS
    return is_named and (isinstance(kind, ir.F32Type) or is_half(kind))


def is_vectorised(op: ir.Operation) -> bool:
    """Whether one instruction or a few on vectors compute the operation on its element types."""
    name = op.name.removeprefix("stablehlo.")
    kinds = [element_type(each) for each in (*op.operands, *op.results)]
    if name == "convert":
        return kinds[0] == kinds[1] or conversion_of(kinds[0], kinds[1]) is not None
    if name == "bitcast_convert":
        return width_of(kinds[0]) == width_of(kinds[1])
    if name in _OTHERS:
        return True
    if name == "clamp":
        return is_float(kinds[0]) or is_half(kinds[0])
    if name not in ARITHMETIC:
        return False
    floating, integer = ARITHMETIC[name]
    return bool(floating if is_float(kinds[0]) or is_half(kinds[0]) else integer)


def conversion_of(source: ir.Type, into: ir.Type) -> str | None:
    """The operation that converts numbers of one type to another; None for conversions that no kernel needs."""
    floats = isinstance(source, ir.FloatType), isinstance(into, ir.FloatType)
    narrower = width_of(into) < width_of(source)
    if floats == (True, True):
        return "arith.truncf" if narrower else "arith.extf" if width_of(into) > width_of(source) else None
    if floats == (False, True):
        unsigned = ir.IntegerType(source).is_unsigned or width_of(source) == 1
        return None if is_half(into) else "arith.uitofp" if unsigned else "arith.sitofp"
    if floats == (False, False) and width_of(into) > 1:
        unsigned = ir.IntegerType(source).is_unsigned or width_of(source) == 1
        return "arith.trunci" if narrower else "arith.extui" if unsigned else "arith.extsi"
    return None


def is_elementwise(op: ir.Operation) -> bool:
    """Whether each element of the result depends only on scalars and on the same element of each operand."""
    if not (is_vectorised(op) or is_function(op)):
        return False
    shape = shape_of(op.results[0])
    return all(shape_of(operand) in (shape, []) for operand in op.operands)


def operations_before(
    value: ir.Value, is_wanted: Callable[[ir.Operation], bool], passed: Collection[str]
) -> Iterator[ir.Operation]:
    """The wanted operations from which only these and those of one result that are vectorised lead to the value."""
    seen, waiting = set(), [owner(value)]
    while waiting:
        op = waiting.pop()
        if op is None or op in seen:
            continue
        seen.add(op)
        if is_wanted(op):
            yield op
        elif op.name in passed or (len(op.results) == 1 and is_vectorised(op)):
            waiting += map(owner, op.operands)
