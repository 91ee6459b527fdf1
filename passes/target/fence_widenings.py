"""Keep a vector that is widened from 16 bits apart from the tensor that it is broadcast over, such as a bias.

IREE 3.13 widens the vector in a loop within the kernel of the tensor's elementwise operations, which then take twice as
long. So they read a copy (`flow.tensor.clone`), and a kernel of its own widens the vector.

    x + broadcast(convert(b))  becomes  x + broadcast(flow.tensor.clone(convert(b)))
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import widened_from
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, has_element, is_half, shape_of
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def fence_widenings(module: ir.Module) -> None:
    """Put a `flow.tensor.clone` between the widening of a 16-bit tensor with an axis and each of its broadcasts."""
    for op in operations_in(module.operation):
        if op.name != "stablehlo.broadcast_in_dim" or not shape_of(op.operands[0]):
            continue
        source = widened_from(op.operands[0])
        if source is not None and is_half(element_type(source)) and has_element(op.operands[0], ir.F32Type.get()):
            with ir.InsertionPoint(op):
                op.operands[0] = build.clone(op.operands[0])


PASS = Pass(
    name="fence-widenings",
    summary="keep widened vectors apart from the tensors that they are broadcast over",
    description=__doc__,
    run=fence_widenings,
)
