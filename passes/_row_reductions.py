"""Reductions of all of a matrix to one number, from the parts that the matrix is computed in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sonew_compiled.passes import _build as build
from sonew_compiled.passes._function import owner, shape_of
from sonew_compiled.passes._mlir import ir

LANES = 64
"""Neighbours in memory that are reduced side by side, before they are to one: four vectors of 512 bits.

Sums along the vectors of a processor take three times as long, for which IREE 3.13 adds up the elements of each.
"""

# Elements reduced to one number in a row, and numbers reduced at once in the end; at most.
_LIMIT = 4096
# Into how many blocks, for the cores to share, a large part is cut; about.
_BLOCKS = 32
# Parts of fewer elements are one block.
_SMALL = 1 << 14


@dataclass(frozen=True, kw_only=True)
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

    def reduce_parts(self, parts: Sequence[ir.Value]) -> None:
        """Reduce matrices with the elements of the one that was reduced in its place, and erase the stages."""
        with ir.InsertionPoint(self.template):
            few = build.concatenate([self._lanes_of(each) for each in parts], 0)
            (result,) = build.reduce_as(self.template, [few], [0])
        self.operations[-1].results[0].replace_all_uses_with(result)
        for op in reversed(self.operations):
            op.erase()

    def _lanes_of(self, value: ir.Value) -> ir.Value:
        """A vector that reduces to what the matrix does."""
        size = math.prod(shape_of(value))
        lanes = math.gcd(size, LANES)
        count = size // lanes
        blocks = 1 if size <= _SMALL else _near(count, _BLOCKS)
        if lanes < LANES // 4 or count > blocks * _LIMIT:
            return build.reduce_as(self.template, [value], [1])[0]
        (few,) = build.reduce_as(self.template, [build.reshape(value, [blocks, count // blocks, lanes])], [1])
        if blocks * lanes > _LIMIT:
            return build.reduce_as(self.template, [few], [0])[0]
        return build.reshape(few, [blocks * lanes])


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


def _near(count: int, aim: int) -> int:
    """The divisor that is nearest to the aim, or to the least that leaves no more than the limit to each."""
    aim = max(aim, count // _LIMIT)
    divisors = {each for low in range(1, math.isqrt(count) + 1) if count % low == 0 for each in (low, count // low)}
    return min(divisors, key=lambda each: (count > each * _LIMIT, abs(math.log(each / aim))))
