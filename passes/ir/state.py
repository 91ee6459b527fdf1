"""The training state: the functions that take and return it, and how a pass adds a scalar to it."""

from __future__ import annotations

from sonew_compiled.contract import DONATE_ATTRIBUTE, INIT, NAME_ATTRIBUTE, ROLE_ATTRIBUTE, TRAIN_STEP, Role
from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir.build import constant
from sonew_compiled.passes.ir.function import Function, functions
from sonew_compiled.passes.ir.mlir import ir


def functions_of_state(module: ir.Module, name: str) -> tuple[Function, Function]:
    """The functions `init` and `train_step`, for the pass of this name.

    Raises:
        UsageError: the module lacks one of them.
    """
    by_name = {function.name: function for function in functions(module)}
    if not {INIT, TRAIN_STEP} <= by_name.keys():
        raise UsageError(f"{name} needs the functions init and train_step")
    return by_name[INIT], by_name[TRAIN_STEP]


def add_state(init: Function, step: Function, name: str, initial: float, element: ir.Type) -> ir.Value:
    """Add a scalar to the training state.

    `init` returns its initial value; `step` takes it as a donated argument. The caller adds its new value to the
    results of `step`, with `state_attributes`.

    Returns:
        The scalar as `step` takes it.
    """
    with ir.InsertionPoint(init.terminator):
        value = constant(initial, element)
    init.add_result(value, state_attributes(name))
    donated = {**state_attributes(name), DONATE_ATTRIBUTE: ir.UnitAttr.get()}
    return step.add_argument(ir.RankedTensorType.get((), element), donated)


def state_attributes(name: str) -> dict[str, ir.Attribute]:
    """The attributes of a tensor that a pass adds to the state."""
    return {NAME_ATTRIBUTE: ir.StringAttr.get(name), ROLE_ATTRIBUTE: ir.StringAttr.get(Role.OPTIMIZER)}
