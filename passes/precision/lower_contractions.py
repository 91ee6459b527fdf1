"""Round the operands of matrix products and convolutions to 16 bits; products and sums stay in float32.

This holds for the model's contractions, forward and backward. Contractions of the optimizer's update alone keep float32
operands, because an optimizer's linear algebra, such as an inverse root, does not tolerate the rounding. The pass knows
the update by its name, `train_step__update`. The contractions of `init` keep float32 operands too.
"""

from __future__ import annotations

from sonew_compiled import contract
from sonew_compiled.passes.ir.calls import callee, calls, reachable
from sonew_compiled.passes.ir.convert import narrowed
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.operations import CONTRACTIONS
from sonew_compiled.passes.ir.types import has_element
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Option, Pass, read_half

UPDATE = contract.merged_name(contract.TRAIN_STEP, contract.UPDATE)


def lower_contractions(module: ir.Module, *, dtype: str) -> None:
    """Give every float32 contraction outside the update and `init` operands of `dtype`; its result stays float32."""
    narrow, wide = ir.Type.parse(dtype), ir.F32Type.get()
    kept = _of_the_update_alone(module) | reachable(module, [contract.INIT])
    for function in functions(module):
        if function.name in kept:
            continue
        for op in operations_in(function.op):
            if op.name in CONTRACTIONS and all(has_element(v, wide) for v in (*op.operands, op.results[0])):
                with ir.InsertionPoint(op):
                    op.operands[0] = narrowed(op.operands[0], narrow)
                    op.operands[1] = narrowed(op.operands[1], narrow)


def _of_the_update_alone(module: ir.Module) -> set[str]:
    """The update, and the functions that nothing else calls."""
    names = {function.name for function in functions(module)} & {UPDATE}
    inside = reachable(module, names)
    others = [function for function in functions(module) if function.name not in inside]
    from_outside = {callee(call) for function in others for call in calls(function)} - names
    return inside - reachable(module, from_outside)


PASS = Pass(
    name="lower-contractions",
    summary="round the operands of matrix products to 16 bits",
    description=__doc__,
    run=lower_contractions,
    options=(
        Option(
            name="dtype",
            default="bf16",
            help="the type to which operands are rounded, bf16 or f16",
            read=read_half,
        ),
    ),
)
