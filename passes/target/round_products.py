"""Give matrix products and convolutions of 16-bit operands a float32 result, and round it after them.

The sums are float32 either way, and are rounded once. IREE 3.13 cannot compile a product with a 16-bit result for some
GPUs ("failed to distribute"), and compiles slow code for processors.
"""

from __future__ import annotations

from sonew_compiled.passes.ir.convert import round_from_float32
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.operations import CONTRACTIONS
from sonew_compiled.passes.ir.types import element_type, is_half
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def round_products(module: ir.Module) -> None:
    """Give every floating-point contraction with a 16-bit result a float32 one, which is then rounded."""
    for op in operations_in(module.operation):
        if op.name in CONTRACTIONS and is_half(element_type(op.results[0])):
            round_from_float32(op)


PASS = Pass(
    name="round-products",
    summary="give products of 16-bit operands a float32 result, rounded after them",
    description=__doc__,
    run=round_products,
)
