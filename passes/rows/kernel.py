"""The function of one kernel.

    for each workgroup, which has some of the rows and all columns or a block of them:
      for each strip of rows, from `warm_up` rows before the first one on:
        for each lookahead, the largest first:
          for each vector of columns:    compute the rows that are so far ahead: line buffers, and at last the results

If there are line buffers, a workgroup takes a block of columns, so that the buffers stay in the cache. Rows that read
beyond the first row or the last one take a slower body. The columns that do not fill a vector are computed in a mask.
"""

from __future__ import annotations

from collections.abc import Mapping

from sonew_compiled.passes.ir.build import create
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type
from sonew_compiled.passes.rows.frame import Frame, make_frame
from sonew_compiled.passes.rows.layout import Layout
from sonew_compiled.passes.rows.loops import Loop, arith, index
from sonew_compiled.passes.rows.memory import LINE, bypass_caches, bytes_of
from sonew_compiled.passes.rows.stage import Stage, leave_row_before
from sonew_compiled.passes.rows.stream_executable import StreamExecutable


class Kernel:
    """A kernel of an executable, made from its layout.

    Attributes:
      layout: its layout.
    """

    def __init__(self, layout: Layout, executable: StreamExecutable) -> None:
        self.layout = layout
        bindings = len(layout.operands) + len(layout.results)
        self._function = executable.add(layout.symbol, bindings=bindings, groups=layout.groups)
        self._block = self._function.regions[0].blocks[0]
        with ir.InsertionPoint(self._block):
            _loop_over_rows(make_frame(layout, self._block))
            create("func.return")

    def overwrite(self, results: Mapping[int, int]) -> None:
        """Write these results, by number, to the memory of operands; such a result has no binding of its own."""
        count = len(self.layout.operands)
        for result in sorted(results, reverse=True):
            self._block.arguments[count + result].replace_all_uses_with(self._block.arguments[results[result]])
            self._block.erase_argument(count + result)
        kind = ir.FunctionType.get([each.type for each in self._block.arguments], [])
        self._function.attributes["function_type"] = ir.TypeAttr.get(kind)

    def bypass_caches(self, least: int) -> None:
        """Store results of at least `least` bytes past the caches, except those that overwrite an operand.

        Every row must begin with a cache line, because a line that is stored in parts goes to memory in parts.
        """
        for binding in self._block.arguments[len(self.layout.operands) :]:
            for use in binding.uses:
                memory = use.owner.results[0]
                size = bytes_of(memory)
                if size >= least and size // self.layout.rows % LINE == 0:
                    for each in memory.uses:
                        bypass_caches(each.owner)


def _loop_over_rows(frame: Frame) -> None:
    phase, vectors = frame.layout.phase, frame.vectors
    identities = [vectors.constant(each.combination.identity, element_type(each.value)) for each in frame.reduced]
    start = arith("subi", frame.low, index(phase.warm_up)) if phase.warm_up else frame.low
    if phase.carried:
        leave_row_before(frame)
    rows = Loop(start, frame.high, index(phase.strip), identities)
    with ir.InsertionPoint(rows.body):
        totals = rows.arguments
        prefetched: set[ir.Value] = set()
        for lookahead in sorted({0, *(each.lookahead for each in phase.buffers.values())}, reverse=True):
            totals = Stage(frame, rows.variable, lookahead).emit(totals, prefetched)
        rows.finish(totals)
    for each, total in zip(frame.reduced, rows.results, strict=True):
        number = vectors.reduced(each.combination.kind, total)
        create("memref.store", [number, each.memory, frame.workgroup])
