"""Keep what a scatter adds apart from the operations that make it.

IREE 3.13 moves a widening of the added numbers, such as that of bfloat16, into the kernel of the scatter, and its code
generator for GPUs then fails. Nothing is moved across a barrier.
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
            # Operands, indices, updates: as many of the last as of the first.
            for index in range(len(op.results) + 1, len(op.operands)):
                with ir.InsertionPoint(op):
                    (op.operands[index],) = build.apart([op.operands[index]])


PASS = Pass(
    name="fence-scatters",
    summary="keep what a scatter adds apart from the operations that make it",
    description=__doc__,
    run=fence_scatters,
)
