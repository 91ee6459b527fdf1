"""Between which integers a tensor's elements lie, where the module says so."""

from __future__ import annotations

import numpy as np

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import owner

_SAME_ELEMENTS = (
    "stablehlo.broadcast_in_dim",
    "stablehlo.reshape",
    "stablehlo.reverse",
    "stablehlo.slice",
    "stablehlo.transpose",
)


def range_of(value: ir.Value) -> tuple[int, int] | None:
    """The least and the greatest that an element of a tensor of integers can be; None if nothing says."""
    op = owner(value)
    if op is None:
        return None
    if op.name in _SAME_ELEMENTS:
        return range_of(op.operands[0])
    if op.name == "stablehlo.constant":
        numbers = np.array(ir.DenseElementsAttr(op.attributes["value"]))
        return (int(numbers.min()), int(numbers.max())) if numbers.size else None
    if op.name == "stablehlo.iota":
        return 0, max(shape_of(value)[ir.IntegerAttr(op.attributes["iota_dimension"]).value] - 1, 0)
    if op.name == "stablehlo.concatenate":
        parts = [range_of(each) for each in op.operands]
        known = [each for each in parts if each is not None]
        return (min(low for low, _ in known), max(high for _, high in known)) if len(known) == len(parts) else None
    if op.name == "stablehlo.clamp":
        low, high = range_of(op.operands[0]), range_of(op.operands[2])
        return None if low is None or high is None else (low[0], high[1])
    return None


def is_inside(indices: ir.Value, greatest: list[int]) -> bool:
    """Whether no element can be below zero, or above any of these."""
    found = range_of(indices)
    return found is not None and found[0] >= 0 and found[1] <= min(greatest)


def limits(indices: ir.Value, axis: int, greatest: list[int]) -> ir.Value:
    """A tensor like the indices that has for each component, of those along an axis, the greatest that it may be.

    The axis is that behind the last where the indices are of one component, and have no axis for it.
    """
    element, shape = element_type(indices), shape_of(indices)
    # An index of eight bits cannot leave a larger tensor.
    bits = element.width - (0 if element.is_unsigned else 1)
    numbers = [min(each, 2**bits - 1) for each in greatest]
    if len(set(numbers)) == 1:
        return build.constant(numbers[0], element, shape)
    parts = [build.constant(each, element, [1]) for each in numbers]
    return build.broadcast(build.concatenate(parts, 0), shape, [axis])
