"""The attributes by which passes know the arguments and results of functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sonew_compiled.passes.ir.mlir import ir

Attributes = dict[str, ir.Attribute]

NAME = "sonew.name"
"""On an argument or result: the name of the tensor."""

ROLE = "sonew.role"
"""On a tensor of the training state: which of `ROLES` it has."""

DONATED = "sonew.donate"
"""On an argument: the caller gives its buffer up."""

ROLES = ("parameter", "optimizer")
"""The roles of tensors of the training state."""

ALIASED = "tf.aliasing_output"
"""On an argument: the number of the result that takes its buffer."""

GIVEN_UP = "jax.buffer_donor"
"""On an argument: the compiler may give its buffer to a result."""


def text_attribute(attributes: Mapping[str, ir.Attribute], key: str) -> str:
    """The attribute's string, empty if there is none."""
    return str(ir.StringAttr(attributes[key]).value) if key in attributes else ""


def role_indices(attributes: Sequence[Attributes], roles: Iterable[str]) -> list[int]:
    """Which of the arguments or results are tensors of the state with one of these roles."""
    wanted = set(roles)
    return [index for index, each in enumerate(attributes) if text_attribute(each, ROLE) in wanted]
