"""Keep the updates of a scatter apart from the operations that make them.

IREE 3.13 moves a widening of the updates, such as that of bfloat16, into the kernel of the scatter, and its code
generator for GPUs fails. It moves nothing across a barrier.
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def fence_scatters(module: ir.Module) -> None:
    """Put a barrier before the updates of every `stablehlo.scatter`."""
    for op in operations_in(module.operation):
        if op.name == "stablehlo.scatter":
            # The operands, the indices, and as many updates as operands.
            for index in range(len(op.results) + 1, len(op.operands)):
                with ir.InsertionPoint(op):
                    (op.operands[index],) = build.apart([op.operands[index]])


PASS = Pass(
    name="fence-scatters",
    summary="keep the updates of a scatter apart from the operations that make them",
    description=__doc__,
    run=fence_scatters,
)
