"""The attributes of a function's arguments and results that passes read, and the attributes of windows by axis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

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


def axis_numbers(op: ir.Operation, name: str, rank: int) -> list[int]:
    """The numbers, one for each axis, of an attribute of an operation; ones if it has no such attribute."""
    return list(ir.DenseI64ArrayAttr(op.attributes[name])) if name in op.attributes else [1] * rank


def paddings(op: ir.Operation, rank: int) -> np.ndarray:
    """The elements that an operation pads before and behind each axis: int64[rank, 2], zeros if it pads nothing."""
    if "padding" not in op.attributes:
        return np.zeros((rank, 2), np.int64)
    return np.array(ir.DenseIntElementsAttr(op.attributes["padding"]), np.int64).reshape(rank, 2)


def role_indices(attributes: Sequence[Attributes], roles: Iterable[str]) -> list[int]:
    """The indices of the arguments or results that have one of these roles."""
    wanted = set(roles)
    return [index for index, each in enumerate(attributes) if text_attribute(each, ROLE_ATTRIBUTE) in wanted]
