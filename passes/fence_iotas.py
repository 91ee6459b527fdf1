"""Keep numbered elements apart from the reductions that they lead to.

IREE 3.13 computes the numbers of elements within the kernel that reduces what depends on them, such as the entries of a
matrix less the identity. Its code for Vulkan and Metal shares them between threads as indices, a type that a shader
cannot store, and does not compile. Read from memory, behind a barrier, they are integers.
"""

from __future__ import annotations

from sonew_compiled.passes import _build as build
from sonew_compiled.passes._function import operations_in
from sonew_compiled.passes._mlir import ir
from sonew_compiled.passes._pass import Pass
from sonew_compiled.passes._vectors import is_vectorised

_MOVES = ("stablehlo.broadcast_in_dim", "stablehlo.reshape", "stablehlo.transpose", "stablehlo.slice")


def fence_iotas(module: ir.Module) -> None:
    """Put a barrier behind every `stablehlo.iota` that elementwise operations lead to a reduction."""
    for op in operations_in(module.operation):
        if op.name == "stablehlo.iota" and _is_reduced(op):
            uses = list(op.results[0].uses)
            with ir.InsertionPoint.after(op):
                (apart,) = build.apart(list(op.results))
            for use in uses:
                use.owner.operation.operands[use.operand_number] = apart


def _is_reduced(op: ir.Operation) -> bool:
    seen, waiting = {op}, [op]
    while waiting:
        for use in waiting.pop().results[0].uses:
            user = use.owner.operation
            if user.name == "stablehlo.reduce":
                return True
            if user not in seen and (user.name in _MOVES or (len(user.results) == 1 and is_vectorised(user))):
                seen.add(user)
                waiting.append(user)
    return False


PASS = Pass(
    name="fence-iotas", summary="keep numbered elements apart from the reductions that they lead to", run=fence_iotas
)
