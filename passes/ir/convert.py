"""Conversions between element types: making them, and seeing through them."""

from __future__ import annotations

from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, with_element


def convert(value: ir.Value, into: ir.Type) -> ir.Value:
    """Convert a tensor to another element type at the insertion point."""
    kind = with_element(value, into)
    return ir.Operation.create("stablehlo.convert", results=[kind], operands=[value]).result


def narrowed(value: ir.Value, into: ir.Type) -> ir.Value:
    """`value` rounded to the narrower type `into`: what it was widened from, if it was, else by a conversion."""
    source = source_in(value, into)
    return convert(value, into) if source is None else source


def source_in(value: ir.Value, kind: ir.Type) -> ir.Value | None:
    """The operand of the conversion that makes this value, if one does and the operand has this element type."""
    source = widened_from(value)
    return source if source is not None and element_type(source) == kind else None


def widened_from(value: ir.Value) -> ir.Value | None:
    """The operand of the conversion that makes this value, if one does."""
    owner = value.owner
    if isinstance(owner, ir.Block) or owner.operation.name != "stablehlo.convert":
        return None
    return owner.operation.operands[0]
