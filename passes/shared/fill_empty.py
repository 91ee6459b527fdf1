"""Replace contractions over no elements by zeros.

A product over an axis of length 0 is a tensor of zeros. iree-compile 3.13 ends with a division by zero at one.

    dot_general(x: tensor<8x0xf32>, y: tensor<0x4xf32>)  becomes  zeros: tensor<8x4xf32>
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.operations import CONTRACTIONS
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def fill_empty(module: ir.Module) -> None:
    """Rewrite every contraction with an operand of no elements and a result of some."""
    for op in operations_in(module.operation):
        if op.name in CONTRACTIONS and any(0 in shape_of(operand) for operand in op.operands):
            with ir.InsertionPoint(op):
                op.results[0].replace_all_uses_with(build.like(0, op.results[0]))
            op.erase()


PASS = Pass(
    name="fill-empty",
    summary="replace contractions over no elements by zeros",
    description=__doc__,
    run=fill_empty,
)
