"""Bring the indices of gathers into bounds.

StableHLO moves a slice that would reach outside the operand to the nearest place inside. IREE 3.13 reads the memory
outside. Indices that are known to be inside stay as they are.

    gather(x, i)  becomes  gather(x, clamp(0, i, size of x - size of the slice))
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.ranges import is_inside, limits
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def clamp_gathers(module: ir.Module) -> None:
    """Clamp the indices of every `stablehlo.gather` that may read outside its operand."""
    for op in operations_in(module.operation):
        if op.name == "stablehlo.gather":
            _clamp(op)


def _clamp(op: ir.Operation) -> None:
    dimensions = stablehlo.GatherDimensionNumbers(op.attributes["dimension_numbers"])
    operand, indices = op.operands
    sizes, slices = shape_of(operand), list(ir.DenseI64ArrayAttr(op.attributes["slice_sizes"]))
    greatest = [sizes[dim] - slices[dim] for dim in dimensions.start_index_map]
    if not greatest or is_inside(indices, greatest):
        return
    with ir.InsertionPoint(op):
        highest = limits(indices, dimensions.index_vector_dim, greatest)
        clamped = build.elementwise("minimum", build.elementwise("maximum", indices, 0), highest)
    op.operands[1] = clamped


PASS = Pass(
    name="clamp-gathers",
    summary="bring the indices of gathers into bounds",
    description=__doc__,
    run=clamp_gathers,
)
