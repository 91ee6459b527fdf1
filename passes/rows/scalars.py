"""The loop-invariant scalars of a kernel, and their sources.

A reduction leaves a partial result for each workgroup. Combining these, and computing the scalars that depend on the
sum, would take dispatches of one element each, and every core would wait before and after. So each workgroup of a
kernel that reads such a scalar computes the scalar at its start, always in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.elementwise import is_vectorised
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import owner
from sonew_compiled.passes.rows.loops import Loop, index, select
from sonew_compiled.passes.rows.reductions import Partial
from sonew_compiled.passes.rows.vectors import COMBINATIONS, Vectors


@dataclass(frozen=True, kw_only=True)
class Scalars:
    """The sources of the scalars that a kernel reads.

    Attributes:
      given: the scalars that it takes as tensors without axes.
      partials: the scalars of which it takes partial results.
      operations: the operations that it does on both, in order.
    """

    given: Sequence[ir.Value]
    partials: Mapping[ir.Value, Partial]
    operations: Sequence[ir.Operation]


def scalars_of(read: Iterable[ir.Value], partials: Mapping[ir.Value, Partial]) -> Scalars:
    """The scalars of a kernel.

    Args:
      read: the scalars that it reads.
      partials: the reductions that earlier kernels left as partial results.
    """
    search = _Search(partials)
    for value in read:
        search.add(value)
    return Scalars(given=search.given, partials=search.used, operations=search.operations)


class _Search:
    """The search from the scalars that are read, back to partial results and to those that are given."""

    def __init__(self, partials: Mapping[ir.Value, Partial]) -> None:
        self.given: list[ir.Value] = []
        self.used: dict[ir.Value, Partial] = {}
        self.operations: list[ir.Operation] = []
        self._partials = partials
        self._known: dict[ir.Value, bool] = {}

    def add(self, value: ir.Value) -> None:
        """Find the value's source; constants need none."""
        if not self._is_computed(value) and splat_of(value) is None and value not in self.given:
            self.given.append(value)

    def _is_computed(self, value: ir.Value) -> bool:
        """Whether the value depends on partial results, and the kernel can compute all operations in between."""
        if value not in self._known:
            self._known[value] = self._compute(value)
        return self._known[value]

    def _compute(self, value: ir.Value) -> bool:
        if value in self._partials:
            self.used[value] = self._partials[value]
            return True
        op = owner(value)
        if op is None or not is_vectorised(op) or any(shape_of(each) for each in op.operands):
            return False
        computed = [self._is_computed(each) for each in op.operands]
        if not any(computed):
            return False
        for operand in op.operands:
            self.add(operand)
        self.operations.append(op)
        return True


def combined(partial: Partial, vectors: Vectors, memory: ir.Value) -> ir.Value:
    """A vector whose lanes all hold the combination of the partial results in memory."""
    element = element_type(partial.reduction.result)
    combination = COMBINATIONS[partial.reduction.combine]
    none = vectors.constant(combination.identity, element)
    whole = partial.count - partial.count % vectors.lanes
    total = none
    if whole:
        loop = Loop(index(0), index(whole), index(vectors.lanes), [none])
        with ir.InsertionPoint(loop.body):
            part = vectors.load(memory, loop.variable, element)
            loop.finish([vectors.binary(combination.operation, loop.arguments[0], part)])
        (total,) = loop.results
    if partial.count > whole:
        mask = vectors.mask(index(partial.count - whole))
        part = select(mask, vectors.load(memory, index(whole), element, mask), none)
        total = vectors.binary(combination.operation, total, part)
    number = vectors.reduced(combination.kind, total)
    first = vectors.constant(partial.reduction.first_value, element)
    return vectors.binary(combination.operation, first, vectors.broadcast(number))
