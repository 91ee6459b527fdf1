"""Ask for every digit of the operands of matrix products and convolutions.

A product that names no precision leaves it to the compiler how much of its operands it uses. On a TPU that is what
bfloat16 has of them, so that a float32 module would train in bfloat16. What is to be rounded a precision policy has
rounded; nothing is lost in products of bfloat16 operands, and they are left as they are.
"""

from __future__ import annotations

from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.operations import CONTRACTIONS
from sonew_compiled.passes.ir.types import has_element
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def exact_contractions(module: ir.Module) -> None:
    """Give every contraction whose operands are not both bfloat16 the precision `HIGHEST`."""
    narrow = ir.BF16Type.get()
    highest = ir.ArrayAttr.get([ir.Attribute.parse("#stablehlo<precision HIGHEST>")] * 2)
    for function in functions(module):
        for op in operations_in(function.op):
            if op.name in CONTRACTIONS and not all(has_element(operand, narrow) for operand in op.operands):
                op.attributes["precision_config"] = highest


PASS = Pass(
    name="exact-contractions",
    summary="ask for every digit of the operands of products and convolutions",
    description=__doc__,
    run=exact_contractions,
)
