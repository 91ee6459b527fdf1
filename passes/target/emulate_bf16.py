"""Replace bfloat16 by rounded float32 inside functions, and by pairs in integers outside.

IREE's code generators for SPIR-V fail on bfloat16. Inside a function a bfloat16 becomes a float32, rounded by integer
arithmetic wherever it was rounded to bfloat16. An argument or result of an export keeps its bytes, as a vector of
`ui32`: each holds two numbers, the first in its lower half. The upper half is zero if the last number has no partner.
The pass runs after `emulate-contractions` and `emulate-arithmetic`, which leave only operations that move values and
conversions from and to float32.

16-bit integers would not do: without storage of 16 bits, IREE 3.13 writes vectors of them over the memory behind them.
Pairs are split and joined behind barriers, so that a product does not repeat this for each operand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.function import Function, functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.operations import MOVES
from sonew_compiled.passes.ir.rounding import rounded
from sonew_compiled.passes.ir.types import element_type, has_element, shape_of, with_element
from sonew_compiled.passes.ir.uses import Readers, operations_in
from sonew_compiled.passes.record import Pass


def emulate_bf16(module: ir.Module) -> None:
    """Remove bfloat16 from the module. A module that computes with it in other ways stays as it is."""
    operations = operations_in(module.operation)
    touched = [op for op in operations if any(_is_bf16(value) for value in (*op.operands, *op.results))]
    if not all(_is_understood(op) for op in touched):
        return
    exported = [function for function in functions(module) if function.is_public]
    outside = {
        function.name: (
            [_is_bf16(value) for value in function.arguments],
            [_is_bf16(value) for value in function.returned],
        )
        for function in exported
    }
    wide = ir.F32Type.get()
    widenings = [op for op in touched if op.name == "stablehlo.convert" and _is_bf16(op.operands[0])]
    narrowings = [op for op in touched if op.name == "stablehlo.convert" and _is_bf16(op.results[0])]
    for op in operations:
        if op.name == "stablehlo.constant" and _is_bf16(op.results[0]):
            number = ir.FloatAttr(ir.DenseElementsAttr(op.attributes["value"]).get_splat_value()).value
            kind = with_element(op.results[0], wide)
            op.attributes["value"] = ir.DenseElementsAttr.get_splat(kind, ir.FloatAttr.get(wide, number))
        arguments = [value for region in op.regions for block in region.blocks for value in block.arguments]
        for value in filter(_is_bf16, (*op.results, *arguments)):
            value.set_type(with_element(value, wide))
    for op in [op for op in touched if op.name == "stablehlo.bitcast_convert"]:
        _bitcast(op)
    for op in narrowings:
        with ir.InsertionPoint(op):
            _replace(op, rounded(op.operands[0], ir.BF16Type.get()))
    for op in widenings:
        _replace(op, op.operands[0])
    for function in functions(module):
        if function.name in outside:
            _enter_and_leave(function, *outside[function.name])
        function.finish()


def _is_understood(op: ir.Operation) -> bool:
    if op.name == "stablehlo.constant":
        return bool(ir.DenseElementsAttr(op.attributes["value"]).is_splat)
    if op.name == "stablehlo.bitcast_convert":
        return not any(_is_bf16(value) for value in op.operands)
    if op.name == "stablehlo.convert":
        return any(has_element(value, ir.F32Type.get()) for value in (*op.operands, *op.results))
    return op.name in MOVES


def _bitcast(op: ir.Operation) -> None:
    """Replace a cast of 16-bit integers by the float32 numbers whose upper halves they are."""
    with ir.InsertionPoint(op):
        _replace(op, _widened(op.operands[0]))


def _widened(half: ir.Value) -> ir.Value:
    bits = half if element_type(half) == _u16() else build.bitcast(half, _u16())
    return build.bitcast(build.elementwise("shift_left", convert(bits, build.u32()), 16), ir.F32Type.get())


def _enter_and_leave(function: Function, arguments: list[bool], results: list[bool]) -> None:
    """Make these arguments and results pairs in integers."""
    taken = [value for value, is_half in zip(function.arguments, arguments, strict=True) if is_half]
    readers = [Readers(value) for value in taken]
    shapes = [shape_of(value) for value in taken]
    for value, shape in zip(taken, shapes, strict=True):
        value.set_type(ir.RankedTensorType.get([_pairs(shape)], build.u32()))
    if taken:
        with ir.InsertionPoint.at_block_begin(function.block):
            widened = build.apart(list(map(_taken_apart, taken, shapes)))
        for each, value in zip(readers, widened, strict=True):
            each.redirect(value)
    given = [index for index, is_half in enumerate(results) if is_half]
    if given:
        with ir.InsertionPoint(function.terminator):
            for index, value in zip(given, build.apart([function.returned[index] for index in given]), strict=True):
                function.terminator.operands[index] = _put_together(value)


def _pairs(shape: Sequence[int]) -> int:
    return -(-math.prod(shape) // 2)


def _taken_apart(pairs: ir.Value, shape: Sequence[int]) -> ir.Value:
    """The float32 numbers whose upper halves are in the pairs."""
    count = shape_of(pairs)[0]
    both = build.broadcast(pairs, [count, 2], dims=[0])
    bits = build.select(_is_first(count), build.elementwise("shift_left", both, 16), _upper(both))
    flat = build.reshape(build.bitcast(bits, ir.F32Type.get()), [2 * count])
    return build.reshape(build.rows(flat, 0, math.prod(shape)), shape)


def _put_together(value: ir.Value) -> ir.Value:
    """The pairs that hold the upper halves of float32 numbers."""
    size, count = math.prod(shape_of(value)), _pairs(shape_of(value))
    flat = build.reshape(build.bitcast(value, build.u32()), [size])
    zero = build.constant(0, build.u32())
    if size % 2:
        flat = build.concatenate([flat, build.constant(0, build.u32(), [1])], 0)
    bits = build.reshape(flat, [count, 2])
    halves = build.select(_is_first(count), build.elementwise("shift_right_logical", bits, 16), _upper(bits))
    return build.reduce("or", halves, zero, [1])


def _is_first(count: int) -> ir.Value:
    """Whether each element of `count` pairs is the first of its pair: i1[count, 2]."""
    which = build.iota([count, 2], 1)
    return build.compare("EQ", which, build.like(0, which), "UNSIGNED")


def _upper(bits: ir.Value) -> ir.Value:
    return build.elementwise("and", bits, 0xFFFF0000)


def _replace(op: ir.Operation, value: ir.Value) -> None:
    op.results[0].replace_all_uses_with(value)
    op.erase()


def _is_bf16(value: ir.Value) -> bool:
    return has_element(value, ir.BF16Type.get())


def _u16() -> ir.Type:
    return ir.IntegerType.get_unsigned(16)


PASS = Pass(
    name="emulate-bf16",
    summary="replace bfloat16 by rounded float32 inside and by pairs in integers outside",
    description=__doc__,
    run=emulate_bf16,
)
