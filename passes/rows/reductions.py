"""Reductions of all of a matrix to one number, from the parts that the matrix is computed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import owner


@dataclass(frozen=True, kw_only=True, eq=False)
class FullReduction:
    """Operations that reduce all of a tensor to one number, in stages.

    Attributes:
      operations: in order, each of which alone reads the one before.
      template: the first of them that reduces.
    """

    operations: Sequence[ir.Operation]
    template: ir.Operation

    @property
    def combine(self) -> str:
        """The operation that reduces two numbers to one, empty if it takes several."""
        names = [each.operation.name for each in self.template.regions[0].blocks[0].operations]
        return names[0].removeprefix("stablehlo.") if len(names) == 2 else ""  # and the return

    @property
    def result(self) -> ir.Value:
        """The number that the tensor is reduced to."""
        return self.operations[-1].results[0]

    @property
    def first_value(self) -> ir.Attribute | None:
        """What the reduction starts from; None if it is no constant."""
        return splat_of(self.template.operands[1])

    def reduce_partial(self, partial: ir.Value) -> None:
        """Reduce a vector of partial results in the place of the tensor, and erase the stages."""
        with ir.InsertionPoint(self.template):
            (result,) = build.reduce_as(self.template, [partial], [0])
        self.result.replace_all_uses_with(result)
        for op in reversed(self.operations):
            op.erase()


def full_reduction(op: ir.Operation) -> FullReduction | None:
    """The stages in which the operation begins to reduce all of a tensor, None if it does not."""
    operations, template = [op], None
    while True:
        if op.name == "stablehlo.reduce" and len(op.results) == 1:
            template = template or op
            if _body(op) != _body(template):
                return None
        elif op.name not in ("stablehlo.reshape", "stablehlo.pad"):
            return None
        readers = [use.owner.operation for use in op.results[0].uses]
        if template is not None and not shape_of(op.results[0]):
            return FullReduction(operations=operations, template=template)
        if len(readers) != 1:
            return None
        (op,) = readers
        operations.append(op)


def _body(op: ir.Operation) -> list[object]:
    """What a reduction's body does, and what it starts from; pads of `split-reductions` are that as well."""
    init = owner(op.operands[1])
    start = op.operands[1] if init is None else str(init.attributes["value"]) if "value" in init.attributes else init
    return [start, *(each.operation.name for each in op.regions[0].blocks[0].operations)]
