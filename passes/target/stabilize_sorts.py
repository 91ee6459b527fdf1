"""Make sorts keep the order of equal elements.

IREE 3.13 sorts by exchanging neighbours wherever `first(a, b)` does not hold. With `a < b`, which JAX gives it, that
exchanges equal elements as well, so that `argsort`, `top_k` and `sort` with several operands take them in another order
than JAX, which sorts stably. It must exchange two neighbours only where the second comes first.

    sort(x) by first(a, b)  becomes  sort(x) by not first(b, a)
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.uses import Readers, operations_in
from sonew_compiled.passes.record import Pass


def stabilize_sorts(module: ir.Module) -> None:
    """Exchange the arguments of each sort's comparison, and negate its result."""
    for op in operations_in(module.operation):
        if op.name != "stablehlo.sort":
            continue
        block = op.regions[0].blocks[0]
        arguments = list(block.arguments)
        readers = [Readers(each) for each in arguments]
        for index, each in enumerate(readers):
            each.redirect(arguments[index ^ 1])
        end = block.operations[len(block.operations) - 1]
        with ir.InsertionPoint(end):
            end.operands[0] = build.elementwise("not", end.operands[0])


PASS = Pass(
    name="stabilize-sorts",
    summary="make sorts keep the order of equal elements",
    description=__doc__,
    run=stabilize_sorts,
)
