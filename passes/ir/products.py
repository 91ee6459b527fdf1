"""Matrix products."""

from __future__ import annotations

from sonew_compiled.passes.ir.mlir import ir, stablehlo


def dot_numbers(op: ir.Operation) -> stablehlo.DotDimensionNumbers:
    """The axes that a `stablehlo.dot_general` contracts, and those that it keeps as batches."""
    return stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
