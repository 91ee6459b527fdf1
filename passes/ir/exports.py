"""New exports of a module."""

from __future__ import annotations

from collections.abc import Sequence

from sonew_compiled.contract import DONATE_ATTRIBUTE, NAME_ATTRIBUTE, ROLE_ATTRIBUTE, Role
from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.attributes import Attributes
from sonew_compiled.passes.ir.function import Function
from sonew_compiled.passes.ir.mlir import ir


def begin_export(name: str, arguments: Sequence[ir.Type]) -> tuple[ir.Operation, ir.Block]:
    """A public function at the insertion point, still without a body and results."""
    function = build.create(
        "func.func",
        attributes={
            "sym_name": ir.StringAttr.get(name),
            "sym_visibility": ir.StringAttr.get("public"),
            "function_type": ir.TypeAttr.get(ir.FunctionType.get(list(arguments), [])),
        },
        regions=1,
    )
    return function, function.regions[0].blocks.append(*arguments)


def finish_export(function: ir.Operation, arguments: Sequence[Attributes], results: Sequence[Attributes]) -> None:
    """Write the signature of a function whose body is complete."""
    made = Function(function)
    made.argument_attributes, made.result_attributes = list(arguments), list(results)
    made.finish()


def label(name: str, role: Role) -> Attributes:
    """The attributes of a tensor."""
    return {NAME_ATTRIBUTE: ir.StringAttr.get(name), ROLE_ATTRIBUTE: ir.StringAttr.get(role)}


def without_donation(attributes: Attributes) -> Attributes:
    """The attributes of an argument that the caller keeps."""
    return {key: value for key, value in attributes.items() if key != DONATE_ATTRIBUTE}
