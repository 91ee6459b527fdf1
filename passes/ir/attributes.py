"""The attributes by which passes know the arguments and results of functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sonew_compiled.contract import ROLE_ATTRIBUTE
from sonew_compiled.passes.ir.mlir import ir

Attributes = dict[str, ir.Attribute]

ALIASED = "tf.aliasing_output"
"""On an argument: the number of the result that takes its buffer."""

GIVEN_UP = "jax.buffer_donor"
"""On an argument: the compiler may give its buffer to a result."""


def text_attribute(attributes: Mapping[str, ir.Attribute], key: str) -> str:
    """The attribute's string, empty if there is none."""
    return str(ir.StringAttr(attributes[key]).value) if key in attributes else ""


def role_indices(attributes: Sequence[Attributes], roles: Iterable[str]) -> list[int]:
    """Which of the arguments or results have one of these roles."""
    wanted = set(roles)
    return [index for index, each in enumerate(attributes) if text_attribute(each, ROLE_ATTRIBUTE) in wanted]
