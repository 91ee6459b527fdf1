"""A phase: the part of a group that one kernel computes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sonew_compiled.passes.ir.constants import is_splat
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import owner
from sonew_compiled.passes.rows.group import RowGroup, Stencil
from sonew_compiled.passes.rows.memory import size_of
from sonew_compiled.passes.rows.reductions import FullReduction

# The cost of slow operations, in additions; a low estimate.
_SLOW = {"stablehlo.divide": 4, "stablehlo.rsqrt": 4, "stablehlo.sqrt": 4}


@dataclass(frozen=True, kw_only=True)
class LineBuffer:
    """The last rows of a value, kept so that they are not computed again for each offset at which they are read.

    Attributes:
      lookahead: the number of rows by which the value is computed ahead of the results.
      rows: the number of its rows that are kept, a power of two.
    """

    lookahead: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Phase:
    """The part of a group that one kernel computes: everything between two reductions that follow each other.

    Attributes:
      group: the group.
      stored: the values that are written as whole matrices.
      reduced: the values that are only reduced, each with its reductions.
      buffers: the values that are kept in line buffers.
      warm_up: the number of rows before the first result from which the line buffers are computed.
      strip: the number of rows of results that are computed together and share their loads and computations.
      carried: the values whose last row a strip leaves in memory for the next strip.
      known: the values that their readers read and do not compute: stored before, or in a line buffer.
      rare: by condition, the selects whose first side is computed only if some lane takes it.
    """

    group: RowGroup
    stored: Sequence[ir.Value]
    reduced: Mapping[ir.Value, Sequence[FullReduction]]
    buffers: Mapping[ir.Value, LineBuffer]
    warm_up: int
    strip: int
    carried: Collection[ir.Value]
    known: Collection[ir.Value] = field(repr=False)
    rare: Mapping[ir.Value, Sequence[ir.Operation]] = field(repr=False)

    @property
    def results(self) -> list[ir.Value]:
        """The values that are computed for every row: those stored and those reduced."""
        return list(dict.fromkeys([*self.stored, *self.reduced]))

    def reads(self, value: ir.Value) -> Stencil:
        """The stencil of one row of the value; it ends at the known values."""
        return self.group.stencil(value, self.known)

    def reads_of_result(self, result: ir.Value) -> Stencil:
        """The stencil of one row of a result; a result in a line buffer is only read."""
        return {result: {0}} if result in self.buffers else self.reads(result)

    def inputs(self) -> list[ir.Value]:
        """The matrices that the kernel loads."""
        made = {op.results[0] for op in self.operations()} | self.buffers.keys()
        stencils = [self.reads_of_result(value) for value in self.results]
        stencils += [self.reads(value) for value in self.buffers]
        read = dict.fromkeys(each for stencil in stencils for each in stencil)
        return [each for each in read if each not in made and not is_splat(each)]

    def scalars(self) -> list[ir.Value]:
        """The loop-invariant scalars that the kernel reads: tensors without axes that are no constants."""
        read: dict[ir.Value, None] = {}
        for op in self.operations():
            shift = self.group.shifts.get(op)
            operands = list(op.operands) if shift is None else [shift.source, shift.fill]
            for each in operands:
                source = owner(each)
                if source is not None and source.name == "stablehlo.broadcast_in_dim" and is_splat(each):
                    each, source = source.operands[0], owner(source.operands[0])
                if not shape_of(each) and (source is None or source.name != "stablehlo.constant"):
                    read[each] = None
        return list(read)

    def has_shifts(self) -> bool:
        """Whether computing any result reads other rows than its own."""
        return any(op in self.group.shifts for op in self.operations())

    def repeated(self) -> int:
        """The number of operations that are done again for further offsets; a slow one counts as several."""
        known = {*self.known, *self.carried}
        made = {*self.results, *self.carried}
        offsets = united(self.group.stencil(each, known - {each}) for each in made)
        offsets |= {each: {0} for each in self.carried}
        computed = [op for op in self.operations() if op.results[0] in offsets]
        return sum((len(offsets[op.results[0]]) - 1) * _SLOW.get(op.name, 1) for op in computed)

    def reach(self) -> int:
        """The number of rows beyond a workgroup's first or last row that it reads or computes."""
        stencils = [(0, self.reads_of_result(value)) for value in self.results]
        stencils += [(buffer.lookahead, self.reads(value)) for value, buffer in self.buffers.items()]
        farthest = max(abs(ahead + at) for ahead, stencil in stencils for offsets in stencil.values() for at in offsets)
        return farthest + self.warm_up + 1

    def kept_bytes(self) -> int:
        """The bytes that line buffers and carried rows take for every column."""
        kept = {value: buffer.rows for value, buffer in self.buffers.items()} | dict.fromkeys(self.carried, 1)
        return sum(rows * size_of(element_type(value)) for value, rows in kept.items())

    def operations(self) -> list[ir.Operation]:
        """The operations that the kernel computes."""
        targets = [*(each for each in self.results if each not in self.buffers), *self.buffers]
        return list(dict.fromkeys(op for value in targets for op in self.group.computed(value, self.known)))


def united(stencils: Iterable[Mapping[ir.Value, set[int]]]) -> Stencil:
    """The offsets at which any of the stencils reads each value."""
    offsets: Stencil = {}
    for stencil in stencils:
        for value, read in stencil.items():
            offsets.setdefault(value, set()).update(read)
    return offsets
