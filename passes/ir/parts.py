"""Tensors that lie one after the other in a vector, as gradients do in a bucket."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sonew_compiled.contract import NAME_ATTRIBUTE
from sonew_compiled.passes.ir.attributes import text_attribute
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import owner


@dataclass(frozen=True, kw_only=True)
class Part:
    """Consecutive elements of a vector.

    Attributes:
      vector: the vector.
      start: the index of the first of the elements.
    """

    vector: ir.Value
    start: int


def part_of(value: ir.Value) -> Part | None:
    """The part of a vector that the tensor is, in row-major order; None if it is none."""
    op = owner(value)
    while op is not None and op.name == "stablehlo.reshape":
        op = owner(op.operands[0])
    if op is None or op.name != "stablehlo.slice" or len(shape_of(op.operands[0])) != 1:
        return None
    (start,), (stride,) = (list(ir.DenseI64ArrayAttr(op.attributes[each])) for each in ("start_indices", "strides"))
    return Part(vector=op.operands[0], start=start) if stride == 1 else None


def ranges_read(module: ir.Module, name: str) -> dict[str, tuple[tuple[int, int], ...]]:
    """The elements of a vector that each export with an argument of this name reads.

    Returns:
      For each of these exports disjoint ranges in order, by the first index and the one after the last.
    """
    found = {}
    for function in functions(module):
        for argument, attributes in zip(function.arguments, function.argument_attributes, strict=True):
            if function.is_public and text_attribute(attributes, NAME_ATTRIBUTE) == name:
                found[function.name] = _joined(_read(use.owner.operation, argument) for use in argument.uses)
    return found


def _read(op: ir.Operation, vector: ir.Value) -> tuple[int, int]:
    """The elements of a vector that one of its readers reads; all, unless it is a slice."""
    part = part_of(op.results[0]) if op.name == "stablehlo.slice" else None
    if part is None:
        return 0, shape_of(vector)[0]
    return part.start, part.start + shape_of(op.results[0])[0]


def _joined(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same elements in disjoint ranges that do not touch."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return tuple(found)
