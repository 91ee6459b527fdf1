"""Splats: tensors whose elements are all the same number."""

from __future__ import annotations

from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import owner

SPLATS = ("stablehlo.constant", "stablehlo.broadcast_in_dim")
"""The operations that can make a splat."""


def splat_of(value: ir.Value) -> ir.Attribute | None:
    """The number that all elements of a constant are; None if the value is no such constant."""
    op = owner(value)
    if op is None or op.name != "stablehlo.constant":
        return None
    numbers = ir.DenseElementsAttr(op.attributes["value"])
    return numbers.get_splat_value() if numbers.is_splat else None


def is_splat(value: ir.Value) -> bool:
    """Whether all elements of the tensor are one number: a constant's, or a scalar's that is broadcast."""
    op = owner(value)
    if op is not None and op.name == "stablehlo.broadcast_in_dim":
        return not shape_of(op.operands[0])
    return splat_of(value) is not None
