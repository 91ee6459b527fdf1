"""Conversions between element types, and the values behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, is_half, with_element
from sonew_compiled.passes.ir.uses import Readers, operations_in, owner


def convert(value: ir.Value, into: ir.Type) -> ir.Value:
    """Convert a tensor to another element type at the insertion point."""
    kind = with_element(value, into)
    return ir.Operation.create("stablehlo.convert", results=[kind], operands=[value]).result


def converted(value: ir.Value, into: ir.Type) -> ir.Value:
    """The tensor in another element type; itself if it has that type."""
    return value if element_type(value) == into else convert(value, into)


def conversions_to_integers(module: ir.Module) -> Iterator[ir.Operation]:
    """Every conversion from floating-point numbers to integers, but for booleans; it may be erased meanwhile."""
    for op in operations_in(module.operation):
        if op.name == "stablehlo.convert":
            source, target = element_type(op.operands[0]), element_type(op.results[0])
            if isinstance(source, ir.FloatType) and isinstance(target, ir.IntegerType) and target.width > 1:
                yield op


def narrowed(value: ir.Value, into: ir.Type) -> ir.Value:
    """`value` rounded to the narrower type `into`: the number that it was widened from, else a conversion."""
    source = source_in(value, into)
    return convert(value, into) if source is None else source


def source_in(value: ir.Value, kind: ir.Type) -> ir.Value | None:
    """The operand of the conversion that makes this value; None without a conversion from this element type."""
    source = widened_from(value)
    return source if source is not None and element_type(source) == kind else None


def widened_from(value: ir.Value) -> ir.Value | None:
    """The operand of the conversion that makes this value; None if no conversion does."""
    op = owner(value)
    return op.operands[0] if op is not None and op.name == "stablehlo.convert" else None


def compute_in_float32(op: ir.Operation) -> None:
    """Widen an operation's 16-bit operands and everything in its regions, and round its 16-bit results."""
    wide = ir.F32Type.get()
    with ir.InsertionPoint(op):
        for index, operand in enumerate(op.operands):
            if is_half(element_type(operand)):
                op.operands[index] = convert(operand, wide)
    for block in (block for region in op.regions for block in region.blocks):
        for value in (*block.arguments, *(result for inner in block.operations for result in inner.operation.results)):
            if is_half(element_type(value)):
                value.set_type(with_element(value, wide))
    round_from_float32(op)


def replace_in_float32(module: ir.Module, computed: Mapping[str, Callable[[ir.Value], ir.Value]]) -> None:
    """Replace every operation of one operand with these names by what a function makes of the operand in float32.

    Results of 16 bits are rounded at the end; operations on float64 stay.
    """
    for op in operations_in(module.operation):
        kind = element_type(op.results[0]) if op.name in computed else None
        if kind is not None and (isinstance(kind, ir.F32Type) or is_half(kind)):
            compute_in_float32(op)
            with ir.InsertionPoint(op):
                op.results[0].replace_all_uses_with(computed[op.name](op.operands[0]))
            op.erase()


def round_from_float32(op: ir.Operation) -> None:
    """Give the operation float32 results, and round those that were of 16 bits after it."""
    wide = ir.F32Type.get()
    for result in op.results:
        had = element_type(result)
        if is_half(had):
            result.set_type(with_element(result, wide))
            readers = Readers(result)
            with ir.InsertionPoint.after(op):
                readers.redirect(convert(result, had))
