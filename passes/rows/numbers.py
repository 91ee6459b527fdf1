"""Numbers that a kernel computes itself, of what the kernels before it have reduced.

A reduction leaves a partial result of each workgroup. Combining them, and what is computed of their result, would be
dispatches of one element each, with every core waiting before and after. Each workgroup of the kernel that reads such
a number computes it instead, at its start and in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.elementwise import is_vectorised
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import owner
from sonew_compiled.passes.rows.loops import Loop, index
from sonew_compiled.passes.rows.reductions import FullReduction
from sonew_compiled.passes.rows.vectors import COMBINE, Vectors

# More partial results than this are not combined again by every workgroup.
_MOST_PARTIAL = 1024


@dataclass(frozen=True, kw_only=True)
class Partial:
    """A reduction that a kernel left in parts.

    Attributes:
      reduction: what it is of.
      count: partial results.
    """

    reduction: FullReduction
    count: int

    def combine(self, vectors: Vectors, memory: ir.Value) -> ir.Value:
        """A vector of the number that the partial results in memory are reduced to."""
        element = element_type(self.reduction.result)
        name, kind, identity = COMBINE[self.reduction.combine]
        none = vectors.constant(identity, element)
        whole = self.count - self.count % vectors.lanes
        total = none
        if whole:
            loop = Loop(index(0), index(whole), index(vectors.lanes), [none])
            with ir.InsertionPoint(loop.body):
                part = vectors.load(memory, loop.variable, element)
                loop.finish([vectors.binary(name, loop.arguments[0], part)])
            (total,) = loop.results
        if self.count > whole:
            mask = vectors.mask(index(self.count - whole))
            part = vectors.select(mask, vectors.load(memory, index(whole), element, mask), none)
            total = vectors.binary(name, total, part)
        number = vectors.reduced(kind, total)
        first = vectors.constant(self.reduction.first_value, element)
        return vectors.binary(name, first, vectors.broadcast(number))


class Numbers:
    """How a kernel comes by the numbers that it reads.

    Attributes:
      given: those that it is given, as tensors of no axes.
      partials: those of which it is given partial results.
      operations: what it computes of both, in order.
    """

    def __init__(self, read: Iterable[ir.Value], partials: Mapping[ir.Value, Partial]) -> None:
        self.given: list[ir.Value] = []
        self.partials: dict[ir.Value, Partial] = {}
        self.operations: list[ir.Operation] = []
        self._all = partials
        self._depends: dict[ir.Value, bool] = {}
        for value in read:
            if not self._is_computed(value):
                self._give(value)

    def _is_computed(self, value: ir.Value) -> bool:
        """Whether it depends on partial results, and all on the way from them can be computed here."""
        if value not in self._depends:
            self._depends[value] = self._find(value)
        return self._depends[value]

    def _find(self, value: ir.Value) -> bool:
        if value in self._all:
            self.partials[value] = self._all[value]
            return True
        op = owner(value)
        if op is None or not is_vectorised(op) or any(shape_of(each) for each in op.operands):
            return False
        computed = [self._is_computed(each) for each in op.operands]
        if not any(computed):
            return False
        for operand, is_computed in zip(op.operands, computed, strict=True):
            if not is_computed:
                self._give(operand)
        self.operations.append(op)
        return True

    def _give(self, value: ir.Value) -> None:
        if splat_of(value) is None and value not in self.given:
            self.given.append(value)


def partials_of(reduced: Mapping[ir.Value, Iterable[FullReduction]], count: int) -> dict[ir.Value, Partial]:
    """The reductions, by their results, that later kernels may combine from so many parts each."""
    if count > _MOST_PARTIAL:
        return {}
    all_of_them = (each for reductions in reduced.values() for each in reductions)
    return {each.result: Partial(reduction=each, count=count) for each in all_of_them if each.first_value is not None}
