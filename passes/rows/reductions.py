"""Reductions of a whole matrix to one number, which kernels compute in parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import owner

# Every workgroup that reads a reduction combines its partial results again, unless there are more than this.
_MOST_PARTIAL = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class FullReduction:
    """Operations that reduce a whole tensor to one number, in stages.

    Attributes:
      operations: the stages, in order; each is the only reader of the one before.
      template: their first `stablehlo.reduce`.
    """

    operations: Sequence[ir.Operation]
    template: ir.Operation

    @property
    def combine(self) -> str:
        """The operation that combines two numbers, such as `add`; empty if the body has more than one operation."""
        names = [each.operation.name for each in self.template.regions[0].blocks[0].operations]
        return names[0].removeprefix("stablehlo.") if len(names) == 2 else ""  # the second is the return

    @property
    def result(self) -> ir.Value:
        """The scalar result."""
        return self.operations[-1].results[0]

    @property
    def first_value(self) -> ir.Attribute | None:
        """The initial value; None if it is no constant."""
        return splat_of(self.template.operands[1])

    def reduce_partial(self, partial: ir.Value) -> None:
        """Replace the stages by one reduction of a vector of partial results."""
        with ir.InsertionPoint(self.template):
            (result,) = build.reduce_as(self.template, [partial], [0])
        self.result.replace_all_uses_with(result)
        for op in reversed(self.operations):
            op.erase()


@dataclass(frozen=True, kw_only=True)
class Partial:
    """A reduction that a kernel has left as partial results.

    Attributes:
      reduction: the reduction.
      count: the number of partial results, one for each workgroup.
    """

    reduction: FullReduction
    count: int


def full_reduction(op: ir.Operation) -> FullReduction | None:
    """The reduction of a whole tensor that begins with this operation; None if there is none."""
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
            # A model's own pad adds numbers.
            start = _start(template.operands[1])
            is_neutral = all(_only_adds(each, start) for each in operations if each.name == "stablehlo.pad")
            return FullReduction(operations=operations, template=template) if is_neutral else None
        if len(readers) != 1:
            return None
        (op,) = readers
        operations.append(op)


def partials_of(reduced: Mapping[ir.Value, Iterable[FullReduction]], count: int) -> dict[ir.Value, Partial]:
    """The reductions that later kernels may combine from `count` partial results each, by their results."""
    if count > _MOST_PARTIAL:
        return {}
    all_of_them = (each for reductions in reduced.values() for each in reductions)
    return {each.result: Partial(reduction=each, count=count) for each in all_of_them if each.first_value is not None}


def _body(op: ir.Operation) -> list[object]:
    """The initial value and the operations of a reduction's body.

    The initial value is part of it because `split-reductions` pads with it.
    """
    return [_start(op.operands[1]), *(each.operation.name for each in op.regions[0].blocks[0].operations)]


def _start(value: ir.Value) -> object:
    """What tells an initial value from others."""
    init = owner(value)
    return value if init is None else str(init.attributes["value"]) if "value" in init.attributes else init


def _only_adds(pad: ir.Operation, start: object) -> bool:
    """Whether a pad leaves all elements, and adds the initial value only."""
    low, high, interior = (
        list(ir.DenseI64ArrayAttr(pad.attributes[name]))
        for name in ("edge_padding_low", "edge_padding_high", "interior_padding")
    )
    return _start(pad.operands[1]) == start and min([*low, *high], default=0) >= 0 and not any(interior)
