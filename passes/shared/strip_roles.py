"""Remove the roles of all tensors but those of the training state.

The manifest has the role of every tensor. The artifact keeps only the roles that a target's passes read.
"""

from __future__ import annotations

from sonew_compiled import contract
from sonew_compiled.passes.ir.attributes import Attributes, text_attribute
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.record import Pass


def strip_roles(module: ir.Module) -> None:
    """Remove `sonew.role` from the arguments and results that are no state."""
    for function in functions(module):
        for attributes in (*function.argument_attributes, *function.result_attributes):
            _strip(attributes)
        function.finish()


def _strip(attributes: Attributes) -> None:
    if text_attribute(attributes, contract.ROLE_ATTRIBUTE) not in contract.STATE_ROLES:
        attributes.pop(contract.ROLE_ATTRIBUTE, None)


PASS = Pass(
    name="strip-roles",
    summary="remove the roles of tensors that are no state",
    description=__doc__,
    run=strip_roles,
)
