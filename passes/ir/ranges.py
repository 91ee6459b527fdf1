"""The bounds of a tensor's integers, where the module shows them."""

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
    """The least and the greatest value of a tensor of integers; None if the module does not show them."""
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
    """Whether every element is known to be at least zero and no greater than any of these."""
    found = range_of(indices)
    return found is not None and found[0] >= 0 and found[1] <= min(greatest)


def limits(indices: ir.Value, axis: int, greatest: list[int]) -> ir.Value:
    """A tensor of the indices' shape that holds the greatest value of each component along an axis.

    Indices of a single component may lack the axis; it is then one behind their last.
    """
    element, shape = element_type(indices), shape_of(indices)
    # A narrow integer cannot exceed a greater bound: an index of eight bits never leaves a larger tensor.
    bits = element.width - (0 if element.is_unsigned else 1)
    numbers = [min(each, 2**bits - 1) for each in greatest]
    if len(set(numbers)) == 1:
        return build.constant(numbers[0], element, shape)
    parts = [build.constant(each, element, [1]) for each in numbers]
    return build.broadcast(build.concatenate(parts, 0), shape, [axis])
