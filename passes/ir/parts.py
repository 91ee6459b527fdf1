"""Tensors that lie one after the other in a vector, as gradients do in a bucket."""

from __future__ import annotations

from dataclasses import dataclass

from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import owner


@dataclass(frozen=True, kw_only=True)
class Part:
    """Consecutive elements of a vector.

    Attributes:
      vector: the vector.
      start: the index of the first of the elements.
    """

    vector: ir.Value
    start: int


def part_of(value: ir.Value) -> Part | None:
    """The part of a vector that the tensor is, in row-major order; None if it is none."""
    op = owner(value)
    while op is not None and op.name == "stablehlo.reshape":
        op = owner(op.operands[0])
    if op is None or op.name != "stablehlo.slice" or len(shape_of(op.operands[0])) != 1:
        return None
    (start,), (stride,) = (list(ir.DenseI64ArrayAttr(op.attributes[each])) for each in ("start_indices", "strides"))
    return Part(vector=op.operands[0], start=start) if stride == 1 else None
