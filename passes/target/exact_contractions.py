"""Ask for full precision of the operands of matrix products and convolutions.

If a product names no precision, XLA for TPUs rounds its operands to bfloat16, and a float32 module would train in
bfloat16. A product of bfloat16 operands loses nothing and stays as it is.
"""

from __future__ import annotations

from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.operations import CONTRACTIONS
from sonew_compiled.passes.ir.types import has_element
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def exact_contractions(module: ir.Module) -> None:
    """Give every contraction whose operands are not both bfloat16 the precision `HIGHEST`.

    A model that names an algorithm for a product has chosen its precision.
    """
    narrow = ir.BF16Type.get()
    highest = ir.ArrayAttr.get([ir.Attribute.parse("#stablehlo<precision HIGHEST>")] * 2)
    for function in functions(module):
        for op in operations_in(function.op):
            if op.name not in CONTRACTIONS or "algorithm" in op.attributes:
                continue
            if not all(has_element(operand, narrow) for operand in op.operands):
                op.attributes["precision_config"] = highest


PASS = Pass(
    name="exact-contractions",
    summary="ask for full precision of the operands of products and convolutions",
    description=__doc__,
    run=exact_contractions,
)
