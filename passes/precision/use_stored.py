"""Let a step read the optimizer's state as it is stored.

After `lower-storage`, the step that makes a statistic goes on with the unrounded number. This pass lets it go on with
the rounded one, which its readers can read back from memory in half the bytes:

    s = f(...);  u = g(s);  return convert(s)       becomes       s' = convert(f(...));  u = g(convert(s'));  return s'

Calls are inlined so that the update's arithmetic shows. The call of the gradients stays where `split-step` cuts.
"""

from __future__ import annotations

from sonew_compiled import contract
from sonew_compiled.contract import Role
from sonew_compiled.passes.ir.attributes import role_indices
from sonew_compiled.passes.ir.calls import inline_calls
from sonew_compiled.passes.ir.convert import convert, widened_from
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import has_element
from sonew_compiled.passes.ir.uses import owner
from sonew_compiled.passes.record import Option, Pass, read_flag

GRADIENTS = contract.merged_name(contract.TRAIN_STEP, contract.GRADIENTS)


def use_stored(module: ir.Module, *, seam: bool) -> None:
    """Round each new tensor of the optimizer's state where it is made, for all of its readers.

    Functions are inlined into the exports.
    """
    inline_calls(module, but=GRADIENTS if seam else "")
    for function in functions(module):
        if function.is_public:
            for index in role_indices(function.result_attributes, (Role.OPTIMIZER,)):
                _round_early(function.returned[index])


def _round_early(stored: ir.Value) -> None:
    """Make the readers of the value that `stored` is rounded from read the rounded number."""
    value = widened_from(stored)
    maker = None if value is None else owner(value)
    if value is None or maker is None or not has_element(value, ir.F32Type.get()):
        return
    rounding = owner(stored)
    assert rounding is not None
    readers = [(use.owner.operation, use.operand_number) for use in value.uses if use.owner.operation != rounding]
    if readers:
        rounding.move_after(maker)
        with ir.InsertionPoint.after(rounding):
            widened = convert(stored, ir.F32Type.get())
        for operation, operand in readers:
            operation.operands[operand] = widened


PASS = Pass(
    name="use-stored",
    summary="let a step read the optimizer's state as it is stored",
    description=__doc__,
    run=use_stored,
    options=(
        Option(
            name="seam", default=False, help="1 to leave the call of the gradients, for `split-step`", read=read_flag
        ),
    ),
)
