"""Give matrix products and convolutions of 16-bit operands a float32 result, and round it after them.

The sums are float32 either way, and are rounded once. IREE 3.13 cannot compile a product with a 16-bit result for some
GPUs ("failed to distribute"), and compiles slow code for processors.

An outer product gets float32 operands, which is exact: there is nothing to sum. IREE makes a multiplication of it, and
does not compile that if an operand is transposed and read elsewhere too ("failed to legalize unresolved source
materialization").
"""

from __future__ import annotations

from sonew_compiled.passes.ir.convert import compute_in_float32, round_from_float32
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.operations import CONTRACTIONS
from sonew_compiled.passes.ir.products import dot_numbers
from sonew_compiled.passes.ir.types import element_type, is_half, shape_of
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def round_products(module: ir.Module) -> None:
    """Give every floating-point contraction with a 16-bit result a float32 one, which is then rounded."""
    for op in operations_in(module.operation):
        if op.name == "stablehlo.dot_general" and is_half(element_type(op.operands[0])) and _is_outer(op):
            compute_in_float32(op)
        elif op.name in CONTRACTIONS and is_half(element_type(op.results[0])):
            round_from_float32(op)


def _is_outer(op: ir.Operation) -> bool:
    """Whether each element of a product is a single multiplication."""
    numbers = dot_numbers(op)
    shape = shape_of(op.operands[0])
    return all(shape[axis] == 1 for axis in numbers.lhs_contracting_dimensions)


PASS = Pass(
    name="round-products",
    summary="give products of 16-bit operands a float32 result, rounded after them",
    description=__doc__,
    run=round_products,
)
