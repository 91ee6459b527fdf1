"""Broadcasts: tensors whose elements repeat along some axes."""

from __future__ import annotations

import math
from collections.abc import Iterable

from sonew_compiled.passes.ir.build import create
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, is_float, is_half, shape_of, with_element
from sonew_compiled.passes.ir.uses import owner

_BROADCAST = "stablehlo.broadcast_in_dim"


def row_of(value: ir.Value) -> ir.Value | None:
    """The tensor of one row, if the value is a broadcast that repeats it along all axes but the last; else None."""
    op = owner(value)
    if op is None or op.name != _BROADCAST:
        return None
    (row,) = op.operands
    columns = shape_of(value)[-1]
    last = [size for size, axis in zip(shape_of(row), _axes(op), strict=True) if axis == len(shape_of(value)) - 1]
    return row if last == [columns] and math.prod(shape_of(row)) == columns > 1 else None


def merge_broadcasts(operations: Iterable[ir.Operation]) -> None:
    """Make one broadcast of two that follow each other, and widen stored 16-bit floats after a broadcast, not before.

    A row is then read as it is stored, and a number of which a matrix is made in two steps is a splat. What was rounded
    within the function is widened where it was: IREE 3.13 fails to compile some of it otherwise.
    """
    for op in operations:
        if op.name != _BROADCAST:
            continue
        value, axes = op.operands[0], _axes(op)
        while (source := owner(value)) is not None and (source.name == _BROADCAST or _widens(source)):
            axes = [axes[each] for each in _axes(source)] if source.name == _BROADCAST else axes
            value = source.operands[0]
        if value == op.operands[0]:
            continue
        attributes = {"broadcast_dimensions": ir.DenseI64ArrayAttr.get(axes)}
        with ir.InsertionPoint(op):
            merged = create(_BROADCAST, [value], [with_element(op.results[0], element_type(value))], attributes).result
            if merged.type != op.results[0].type:
                merged = convert(merged, element_type(op.results[0]))
        op.results[0].replace_all_uses_with(merged)
        op.erase()


def _widens(op: ir.Operation) -> bool:
    """Whether it widens 16-bit floats that enter the function."""
    return (
        op.name == "stablehlo.convert"
        and _enters(op.operands[0])
        and is_half(element_type(op.operands[0]))
        and is_float(element_type(op.results[0]))
    )


def _enters(value: ir.Value) -> bool:
    """Whether it is an argument of the function, as it is or broadcast."""
    while (op := owner(value)) is not None and op.name == _BROADCAST:
        value = op.operands[0]
    return op is None


def _axes(op: ir.Operation) -> list[int]:
    return list(ir.DenseI64ArrayAttr(op.attributes["broadcast_dimensions"]))
