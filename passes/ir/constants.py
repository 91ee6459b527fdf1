"""Splats: tensors of which every element is one number."""

from __future__ import annotations

from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import owner

SPLATS = ("stablehlo.constant", "stablehlo.broadcast_in_dim")
"""The operations that make splats, among other tensors."""


def splat_of(value: ir.Value) -> ir.Attribute | None:
    """The number of a constant that consists of one, None if the value is no such constant."""
    op = owner(value)
    if op is None or op.name != "stablehlo.constant":
        return None
    numbers = ir.DenseElementsAttr(op.attributes["value"])
    return numbers.get_splat_value() if numbers.is_splat else None


def is_splat(value: ir.Value) -> bool:
    """Whether every element of the tensor is one number, of a constant or a scalar."""
    op = owner(value)
    if op is not None and op.name == "stablehlo.broadcast_in_dim":
        return not shape_of(op.operands[0])
    return splat_of(value) is not None
