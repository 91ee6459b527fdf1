"""Do without bfloat16, for a target that has no such type: rounded float32 inside, integers of 16 bits outside.

IREE's code generators for SPIR-V fail on bfloat16. A bfloat16 is the upper half of a float32: inside a function it is
that float32, rounded by integer arithmetic where it was rounded to bfloat16; as an argument or result of an exported
function it is an `ui16` of the same bits, which whoever calls the module hands over under that name. Run it after
`emulate-contractions` and `emulate-arithmetic`, which leave nothing but moving and conversion from and to float32.

The conversions between the two are kept apart from everything else by barriers. Fused into a product or a broadcast, a
16-bit integer is read from the wrong address by IREE 3.13 where the device has no storage of 16 bits.
"""

from __future__ import annotations

from sonew_compiled.passes import _build as build
from sonew_compiled.passes._function import (
    Function,
    Readers,
    convert,
    element_type,
    functions,
    has_element,
    operations_in,
    with_element,
)
from sonew_compiled.passes._mlir import ir
from sonew_compiled.passes._pass import Pass
from sonew_compiled.passes.emulate_arithmetic import MOVES
from sonew_compiled.passes.emulate_rounding import rounded


def emulate_bf16(module: ir.Module) -> None:
    """Leave no bfloat16 in the module; one that computes on them in other ways is left as it is."""
    operations = operations_in(module.operation)
    touched = [op for op in operations if any(_is_half(value) for value in (*op.operands, *op.results))]
    if not all(_is_understood(op) for op in touched):
        return
    exported = [function for function in functions(module) if function.is_public]
    outside = {
        function.name: (
            [_is_half(value) for value in function.arguments],
            [_is_half(value) for value in function.returned],
        )
        for function in exported
    }
    wide = ir.F32Type.get()
    widenings = [op for op in touched if op.name == "stablehlo.convert" and _is_half(op.operands[0])]
    narrowings = [op for op in touched if op.name == "stablehlo.convert" and _is_half(op.results[0])]
    for op in operations:
        if op.name == "stablehlo.constant" and _is_half(op.results[0]):
            number = ir.FloatAttr(ir.DenseElementsAttr(op.attributes["value"]).get_splat_value()).value
            kind = with_element(op.results[0], wide)
            op.attributes["value"] = ir.DenseElementsAttr.get_splat(kind, ir.FloatAttr.get(wide, number))
        arguments = [value for region in op.regions for block in region.blocks for value in block.arguments]
        for value in filter(_is_half, (*op.results, *arguments)):
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
        return not any(_is_half(value) for value in op.operands)
    if op.name == "stablehlo.convert":
        return any(has_element(value, ir.F32Type.get()) for value in (*op.operands, *op.results))
    return op.name in MOVES


def _bitcast(op: ir.Operation) -> None:
    """Make the float32 of which an integer of 16 bits is the upper half."""
    with ir.InsertionPoint(op):
        _replace(op, _widened(op.operands[0]))


def _widened(half: ir.Value) -> ir.Value:
    bits = half if element_type(half) == _u16() else build.bitcast(half, _u16())
    return build.bitcast(build.elementwise("shift_left", convert(bits, build.u32()), 16), ir.F32Type.get())


def _enter_and_leave(function: Function, arguments: list[bool], results: list[bool]) -> None:
    """Take and give integers of 16 bits."""
    taken = [value for value, is_half in zip(function.arguments, arguments, strict=True) if is_half]
    readers = [Readers(value) for value in taken]
    for value in taken:
        value.set_type(with_element(value, _u16()))
    if taken:
        with ir.InsertionPoint.at_block_begin(function.block):
            widened = _apart([_widened(value) for value in taken])
        for each, value in zip(readers, widened, strict=True):
            each.redirect(value)
    given = [index for index, is_half in enumerate(results) if is_half]
    if given:
        with ir.InsertionPoint(function.terminator):
            for index, value in zip(given, _apart([function.returned[index] for index in given]), strict=True):
                high = build.elementwise("shift_right_logical", build.bitcast(value, build.u32()), 16)
                function.terminator.operands[index] = convert(high, _u16())


def _apart(values: list[ir.Value]) -> list[ir.Value]:
    """The same values, behind a barrier that nothing is fused across."""
    kinds = [value.type for value in values]
    return list(ir.Operation.create("stablehlo.optimization_barrier", results=kinds, operands=values).results)


def _replace(op: ir.Operation, value: ir.Value) -> None:
    op.results[0].replace_all_uses_with(value)
    op.erase()


def _is_half(value: ir.Value) -> bool:
    return has_element(value, ir.BF16Type.get())


def _u16() -> ir.Type:
    return ir.IntegerType.get_unsigned(16)


PASS = Pass(
    name="emulate-bf16",
    summary="do without bfloat16: rounded float32 inside, integers outside",
    run=emulate_bf16,
)
