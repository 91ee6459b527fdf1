"""Remove the roles of all tensors but those of the training state.

The manifest has every tensor's role. An artifact keeps those that a target's passes may go by.
"""

from __future__ import annotations

from sonew_compiled import contract
from sonew_compiled.passes.ir.attributes import Attributes, text_attribute
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.record import Pass


def strip_roles(module: ir.Module) -> None:
    """Leave `sonew.role` on arguments and results that are state, and on no others."""
    for function in functions(module):
        for attributes in (*function.argument_attributes, *function.result_attributes):
            _strip(attributes)
        function.finish()


def _strip(attributes: Attributes) -> None:
    if text_attribute(attributes, contract.ROLE_ATTRIBUTE) not in contract.STATE_ROLES:
        attributes.pop(contract.ROLE_ATTRIBUTE, None)


PASS = Pass(
    name="strip-roles",
    summary="remove the roles of what is no state",
    description=__doc__,
    run=strip_roles,
)
