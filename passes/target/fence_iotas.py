"""Keep the indices of elements apart from the reductions that read them.

IREE 3.13 fuses indices, such as those that mark a matrix's diagonal, into the kernel of a reduction. Its code for
Vulkan and Metal shares them between threads in the type `index`, which a shader cannot store, and does not compile.
Behind a barrier the kernel reads them from memory as integers.
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.elementwise import MOVES, is_vectorised
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.uses import operations_in, readers_beyond
from sonew_compiled.passes.record import Pass


def fence_iotas(module: ir.Module) -> None:
    """Put a barrier after every `stablehlo.iota` that a reduction reads through elementwise operations."""
    for op in operations_in(module.operation):
        if op.name == "stablehlo.iota" and _is_reduced(op):
            with ir.InsertionPoint.after(op):
                (apart,) = build.apart(list(op.results))
            op.results[0].replace_all_uses_except(apart, apart.owner.operation)


def _is_reduced(op: ir.Operation) -> bool:
    def goes_on(user: ir.Operation) -> bool:
        return user.name in MOVES or (len(user.results) == 1 and is_vectorised(user))

    return any(user.name == "stablehlo.reduce" for user in readers_beyond(op, goes_on))


PASS = Pass(
    name="fence-iotas",
    summary="keep the indices of elements apart from the reductions that read them",
    description=__doc__,
    run=fence_iotas,
)
