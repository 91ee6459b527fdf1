"""The layout of a kernel: all decisions that are made before any of its code."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

from sonew_compiled.passes.ir.broadcasts import row_of
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.parts import Part, part_of
from sonew_compiled.passes.ir.types import element_type
from sonew_compiled.passes.rows.phase import Phase
from sonew_compiled.passes.rows.reductions import FullReduction, Partial
from sonew_compiled.passes.rows.scalars import Scalars, scalars_of
from sonew_compiled.passes.rows.vectors import Vectors

# A workgroup computes about this many elements.
_ELEMENTS = 1 << 14
# A workgroup computes at least this many times the rows that only warm up line buffers.
_WARM_UP_SHARE = 12
# The bytes that line buffers may take of a stack; targets allow 64 KiB.
_BUFFER_BYTES = 48 << 10
_LEAST_LANES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The operands and results of a kernel, and the division of its work.

    Attributes:
      symbol: its name in the executable.
      phase: what it computes.
      vectors: its vectors.
      inputs: the matrices that it loads.
      own: the inputs of which each workgroup reads only the rows that it computes.
      repeated: those of them that are broadcasts of a row, each with the row, which alone is loaded.
      parts: the inputs that are parts of a vector, and are read where they are in it.
      scalars: the loop-invariant scalars that it reads.
      block: how many columns a workgroup computes.
      count: how many rows a workgroup computes.
      after: a value that it takes as an operand only to run after the operation that makes the value.
    """

    symbol: str
    phase: Phase
    vectors: Vectors
    inputs: Sequence[ir.Value]
    own: Collection[ir.Value]
    repeated: Mapping[ir.Value, ir.Value]
    parts: Mapping[ir.Value, Part]
    scalars: Scalars
    block: int
    count: int
    after: ir.Value | None = None

    @property
    def rows(self) -> int:
        """The rows of its matrices."""
        return self.phase.group.rows

    @property
    def columns(self) -> int:
        """The columns of its matrices."""
        return self.phase.group.columns

    @property
    def blocks(self) -> int:
        """The number of workgroups that share a row."""
        return math.ceil(self.columns / self.block)

    @property
    def groups(self) -> int:
        """The number of workgroups; each writes one partial result of each reduction."""
        return math.ceil(self.rows / self.count) * self.blocks

    @property
    def reductions(self) -> list[FullReduction]:
        """The reductions of which it leaves partial results."""
        return [each for reductions in self.phase.reduced.values() for each in reductions]

    @property
    def operands(self) -> list[ir.Value]:
        """The operands of its dispatch; for a scalar in parts, the value for which its partial results stand."""
        after = [] if self.after is None else [self.after]
        given = {**self.repeated, **{each: part.vector for each, part in self.parts.items()}}
        inputs = [given.get(each, each) for each in self.inputs]
        return [*inputs, *self.scalars.given, *self.scalars.partials, *after]

    @property
    def results(self) -> list[ir.Type]:
        """The results of its dispatch: the stored values, then a vector of partial results for each reduction."""
        partial = [ir.RankedTensorType.get([self.groups], element_type(each.result)) for each in self.reductions]
        return [*(value.type for value in self.phase.stored), *partial]


def fits(phase: Phase, lanes: int) -> bool:
    """Whether the matrix has enough rows and columns for a kernel, and the line buffers fit the stack."""
    group = phase.group
    return group.columns >= lanes // 2 and phase.reach() < group.rows and _lanes(phase, lanes) > 0


def layout_of(symbol: str, phase: Phase, vectors: Vectors, partials: Mapping[ir.Value, Partial]) -> Layout:
    """The layout of the kernel of a phase.

    Args:
      symbol: its name.
      phase: what it computes; `fits` holds.
      vectors: the vectors that it would have if line buffers took no memory.
      partials: the reductions that earlier kernels leave as partial results.
    """
    group = phase.group
    vectors = dataclasses.replace(vectors, lanes=_lanes(phase, vectors.lanes))
    inputs = phase.inputs()
    own = _own(phase, inputs)
    block = _block(phase, vectors.lanes)
    least = max(math.ceil(_ELEMENTS / block), _WARM_UP_SHARE * phase.warm_up, 1)
    pieces = max(round(group.rows / least), 1)
    return Layout(
        symbol=symbol,
        phase=phase,
        vectors=vectors,
        inputs=inputs,
        own=own,
        repeated={each: row for each in own if (row := row_of(each)) is not None},
        parts={each: part for each in inputs if (part := part_of(each)) is not None},
        scalars=scalars_of(phase.scalars(), partials),
        block=block,
        count=padded(math.ceil(group.rows / pieces), phase.strip),
    )


def padded(count: int, unit: int) -> int:
    """The count, rounded up to a multiple of the unit."""
    return math.ceil(count / unit) * unit


def _lanes(phase: Phase, lanes: int) -> int:
    """The most lanes, up to `lanes`, at which the line buffers of as many columns fit; 0 if not even four do."""
    while lanes >= _LEAST_LANES and lanes * phase.kept_bytes() > _BUFFER_BYTES:
        lanes //= 2
    return lanes if lanes >= _LEAST_LANES else 0


def _block(phase: Phase, lanes: int) -> int:
    """The columns of a workgroup: all, or as many as fit the line buffers."""
    columns = phase.group.columns
    if not phase.kept_bytes():
        return columns
    most = _BUFFER_BYTES // phase.kept_bytes() // lanes * lanes
    pieces = math.ceil(columns / most)
    return min(padded(math.ceil(columns / pieces), lanes), columns)


def _own(phase: Phase, inputs: Sequence[ir.Value]) -> set[ir.Value]:
    """The inputs that are read only at the row of the results."""
    stencils = [phase.reads_of_result(value) for value in phase.results]
    ahead = {each for value in phase.buffers for each in phase.reads(value)}
    return {each for each in inputs if all(stencil.get(each, {0}) == {0} for stencil in stencils)} - ahead
