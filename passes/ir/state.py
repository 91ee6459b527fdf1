"""Adding to the training state, which `init` gives and `train_step` takes and gives."""

from __future__ import annotations

from sonew_compiled.passes.ir.build import constant
from sonew_compiled.passes.ir.function import Function
from sonew_compiled.passes.ir.mlir import ir


def add_state(init: Function, step: Function, name: str, initial: float, element: ir.Type) -> ir.Value:
    """Add a scalar to the training state.

    `init` gives it the initial value, and `step` takes and donates it; its new value is `step`'s to give, with
    `state_attributes`.

    Returns:
        The scalar as `step` takes it.
    """
    with ir.InsertionPoint(init.terminator):
        value = constant(initial, element)
    init.add_result(value, state_attributes(name))
    donated = {**state_attributes(name), "sonew.donate": ir.UnitAttr.get()}
    return step.add_argument(ir.RankedTensorType.get((), element), donated)


def state_attributes(name: str) -> dict[str, ir.Attribute]:
    """The attributes of a tensor that a pass adds to the state."""
    return {"sonew.name": ir.StringAttr.get(name), "sonew.role": ir.StringAttr.get("optimizer")}
