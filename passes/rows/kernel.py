"""The loops of one kernel over the rows of a group's matrices.

    for each workgroup, of some rows and all columns (or some, where rings are kept, to leave these in the cache):
      for each row, or strip of rows:    from `warm_up` rows before the first on, without results
        for each lead, the largest first:
          for each vector of columns:    compute what is `lead` rows on: rings, and in the end results

Matrices are loaded where a shift reads them, which is a row that has been loaded before or will be soon. Row `rows` is
row 0 of the next column, which in memory is the element after row 0's own; rows before the first likewise. What this
finds for the last column's end, which no other follows, is some other element: the shift's fill is taken in its place.

What would be done again for the next row, and is too little to keep in a ring, is done once for a strip of rows, which
finds the row before its first where the strip before has left it. The columns that do not fill a vector are computed in
a mask; rows that read beyond the first or the last by a slower body.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type
from sonew_compiled.passes.rows.executable import Executable
from sonew_compiled.passes.rows.loops import Loop, arith, index, index_attribute, index_type
from sonew_compiled.passes.rows.numbers import Numbers, Partial
from sonew_compiled.passes.rows.phases import Phase
from sonew_compiled.passes.rows.reductions import FullReduction
from sonew_compiled.passes.rows.stage import Stage, padded
from sonew_compiled.passes.rows.vectors import COMBINE, LINE, Vectors, bypass, bytes_of, create, memory_type

# Elements that a workgroup computes, about, and of how many times the rows that only warm rings up it has at least.
_ELEMENTS = 1 << 14
_WARM_UP_SHARE = 12
# Bytes that rings may take of a stack; targets allow 64 KiB.
_RING_BYTES = 48 << 10
_LEAST_LANES = 4


def fits(phase: Phase, lanes: int) -> bool:
    """Whether there can be a kernel: whether the matrix has enough columns and rows, and a stack room for the rings."""
    group = phase.group
    return group.columns >= lanes // 2 and phase.reach() < group.rows and _lanes(phase, lanes) > 0


def _lanes(phase: Phase, lanes: int) -> int:
    """So many lanes, or fewer with whose columns the rings fit; 0 if there is no room for the rings of four."""
    while lanes >= _LEAST_LANES and lanes * phase.kept_bytes() > _RING_BYTES:
        lanes //= 2
    return lanes if lanes >= _LEAST_LANES else 0


class Kernel:
    """One kernel, and how it is called.

    Attributes:
      symbol: its name in the executable.
      matrices: what it loads.
      own: of these, the matrices of which no workgroup reads rows other than those that it computes.
      numbers: those that it reads.
      after: what it reads nothing of, but is to come after.
      vectors: of how many elements its vectors are.
      block: columns that a workgroup computes; `blocks` of them make a row.
      count: rows that it computes.
      groups: workgroups; so many partial results of each reduction it writes, after what it stores.
    """

    def __init__(self, symbol: str, phase: Phase, vectors: Vectors, partials: Mapping[ir.Value, Partial]) -> None:
        self.symbol = symbol
        self.phase = phase
        self.vectors = dataclasses.replace(vectors, lanes=_lanes(phase, vectors.lanes))
        group = phase.group
        self.rows, self.columns = group.rows, group.columns
        self.matrices = phase.leaves()
        self.numbers = Numbers(phase.scalars(), partials)
        self.after: ir.Value | None = None
        cones = [phase.cone(value) for value in phase.results]
        ahead = {each for value in phase.rings for each in phase.reads(value)}
        self.own = {each for each in self.matrices if all(cone.get(each, {0}) == {0} for cone in cones)} - ahead
        self.block = self._columns_of_a_block()
        self.blocks = math.ceil(self.columns / self.block)
        count = max(math.ceil(_ELEMENTS / self.block), _WARM_UP_SHARE * phase.warm_up, 1)
        pieces = max(round(self.rows / count), 1)
        self.count = padded(math.ceil(self.rows / pieces), phase.strip)
        self.groups = math.ceil(self.rows / self.count) * self.blocks

    def _columns_of_a_block(self) -> int:
        lanes = self.vectors.lanes
        if not self.phase.kept_bytes():
            return self.columns
        most = _RING_BYTES // self.phase.kept_bytes() // lanes * lanes
        pieces = math.ceil(self.columns / most)
        return min(padded(math.ceil(self.columns / pieces), lanes), self.columns)

    def create(self, executable: Executable) -> None:
        """Make its function in the executable."""
        bindings = len(self.operands()) + len(self.results())
        self._function = executable.add(self.symbol, bindings=bindings, groups=self.groups)
        with ir.InsertionPoint(self._function.regions[0].blocks[0]):
            Body(self, self._function.regions[0].blocks[0]).create()
            create("func.return")

    def overwrite(self, results: Mapping[int, int]) -> None:
        """Write results to the memory of operands, each by its number: such a result has no binding of its own."""
        block = self._function.regions[0].blocks[0]
        count = len(self.operands())
        for result in sorted(results, reverse=True):
            block.arguments[count + result].replace_all_uses_with(block.arguments[results[result]])
            block.erase_argument(count + result)
        kind = ir.FunctionType.get([each.type for each in block.arguments], [])
        self._function.attributes["function_type"] = ir.TypeAttr.get(kind)

    def bypass_caches(self, least: int) -> None:
        """Write the results of at least so many bytes that have memory of their own past the caches.

        Only where every row begins with a line of memory: a line that is written in part goes to memory in parts.
        """
        for binding in self._function.regions[0].blocks[0].arguments[len(self.operands()) :]:
            for use in binding.uses:
                memory = use.owner.results[0]
                size = bytes_of(memory)
                if size >= least and size // self.rows % LINE == 0:
                    for each in memory.uses:
                        bypass(each.owner)

    def operands(self) -> list[ir.Value]:
        """What a dispatch takes; of a number in parts these, in its place."""
        after = [] if self.after is None else [self.after]
        return [*self.matrices, *self.numbers.given, *self.numbers.partials, *after]

    def results(self) -> list[ir.Type]:
        """What a dispatch gives: the values stored, then vectors of partial reductions."""
        partial = [ir.RankedTensorType.get([self.groups], element_type(each.result)) for each in self.reductions()]
        return [*(value.type for value in self.phase.stored), *partial]

    def reductions(self) -> list[FullReduction]:
        """What it reduces in parts."""
        return [each for reductions in self.phase.reduced.values() for each in reductions]


class Body:
    """The body of the kernel's function."""

    def __init__(self, kernel: Kernel, block: ir.Block) -> None:
        self.kernel = kernel
        self.phase = kernel.phase
        self.vectors = kernel.vectors
        self._arguments = list(block.arguments)

    def create(self) -> None:
        """Make it."""
        kernel, phase = self.kernel, self.phase
        self.zero, self.one = index(0), index(1)
        arguments = iter(self._arguments)
        size = kernel.rows * kernel.columns
        self.memory = {value: self._subspan(next(arguments), size, value) for value in kernel.matrices}
        # Of these, what a stage prefetches; stages that come later find it in the cache.
        self.prefetched: set[ir.Value] = set()
        self._numbers = {}
        for value in kernel.numbers.given:
            self._numbers[value] = self.vectors.scalar(self._subspan(next(arguments), 1, value), element_type(value))
        for value, partial in kernel.numbers.partials.items():
            self._numbers[value] = partial.combine(self.vectors, self._subspan(next(arguments), partial.count, value))
        for op in kernel.numbers.operations:
            self._numbers[op.results[0]] = self.vectors.elementwise(op, [self.number(each) for each in op.operands])
        if kernel.after is not None:
            next(arguments)
        self.stored = {value: self._subspan(next(arguments), size, value) for value in phase.stored}
        self.partial = [
            (value, each.combine, self._subspan(next(arguments), kernel.groups, value))
            for value, reductions in phase.reduced.items()
            for each in reductions
        ]
        self.rings = {value: self._kept(value, ring.rows) for value, ring in phase.rings.items()}
        self.carried = {value: self._kept(value, 1) for value in phase.carried}
        group = create(
            "stream.dispatch.workgroup.id", results=[index_type()], attributes={"dimension": index_attribute(0)}
        ).result
        piece, self.begin, self.end = group, self.zero, index(kernel.columns)
        if kernel.blocks > 1:
            blocks = index(kernel.blocks)
            piece = arith("divui", group, blocks)
            self.begin = arith("muli", arith("remui", group, blocks), index(kernel.block))
            self.end = arith("minsi", arith("addi", self.begin, index(kernel.block)), self.end)
        whole = arith("subi", self.end, self.begin)
        lanes = index(self.vectors.lanes)
        self.full = arith("subi", self.end, arith("remui", whole, lanes))
        self.low = arith("muli", piece, index(kernel.count))
        self.high = arith("minsi", arith("addi", self.low, index(kernel.count)), index(kernel.rows))
        identities = [
            self.vectors.constant(COMBINE[combine][2], element_type(value)) for value, combine, _ in self.partial
        ]
        start = arith("subi", self.low, index(phase.warm_up)) if phase.warm_up else self.low
        if phase.carried:
            Stage(self, arith("subi", self.low, self.one), 0, precedes=True).leave()
        rows = Loop(start, self.high, index(phase.strip), identities)
        with ir.InsertionPoint(rows.body):
            totals = rows.arguments
            for lead in sorted({0, *(each.lead for each in phase.rings.values())}, reverse=True):
                totals = Stage(self, rows.variable, lead, strip=phase.strip).create(totals)
            rows.finish(totals)
        for (_, combine, memory), total in zip(self.partial, rows.results, strict=True):
            number = self.vectors.reduced(COMBINE[combine][1], total)
            create("memref.store", [number, memory, group])

    def number(self, value: ir.Value) -> ir.Value:
        """A vector of a number, or of the one number that a constant consists of."""
        constant = splat_of(value)
        return self._numbers[value] if constant is None else self.vectors.constant(constant, element_type(value))

    def _kept(self, value: ir.Value, rows: int) -> ir.Value:
        """Memory on the stack for so many rows of a block's columns."""
        return create(
            "memref.alloca",
            results=[_memref(rows * padded(self.kernel.block, self.vectors.lanes), element_type(value))],
            attributes={"operandSegmentSizes": ir.DenseI32ArrayAttr.get([0, 0])},
        ).result

    def _subspan(self, binding: ir.Value, size: int, like: ir.Value) -> ir.Value:
        return create("stream.binding.subspan", [binding, self.zero], [_memref(size, element_type(like))]).result


def _memref(size: int, element: ir.Type) -> ir.Type:
    return ir.MemRefType.get([size], memory_type(element))
