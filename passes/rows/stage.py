"""A stage: the loops over the columns of a row, or of a strip of rows, for one lookahead."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence

from sonew_compiled.passes.ir.build import create
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.rows.addresses import Addresses
from sonew_compiled.passes.rows.columns import Columns
from sonew_compiled.passes.rows.frame import Frame
from sonew_compiled.passes.rows.loops import Loop, arith, index, select


class Stage:
    """The stages of a kernel run one after the other for each strip of rows, the largest lookahead first.

    Args:
      frame: the kernel's.
      row: the first row of the strip.
      lookahead: the number of rows ahead of it at which values are computed; at 0, the results are.
    """

    def __init__(self, frame: Frame, row: ir.Value, lookahead: int) -> None:
        self._frame = frame
        self._layout = frame.layout
        self._phase = frame.layout.phase
        self._lanes = frame.vectors.lanes
        self._row = row
        self._lookahead = lookahead
        buffers = self._phase.buffers.items()
        self._own: Mapping[ir.Value, int] = {
            value: lookahead for value, buffer in buffers if buffer.lookahead == lookahead
        }
        # The rows that only warm up line buffers come before those of the results.
        self._warms_up = self._phase.warm_up > 0 and lookahead == 0

    def emit(self, totals: Sequence[ir.Value], prefetched: set[ir.Value]) -> list[ir.Value]:
        """Make the loops at the insertion point.

        Args:
          totals: the reductions of the rows before.
          prefetched: the inputs that earlier stages prefetch; those of this stage are added.

        Returns:
          The totals with these rows added.
        """
        carried = list(totals) if self._lookahead == 0 else []
        inner = self._is_inner()
        if inner is None:
            made = self._inner_rows(carried, prefetched)
        else:
            either = create("scf.if", [inner], [each.type for each in carried], regions=2)
            with ir.InsertionPoint(either.regions[0].blocks.append()):
                create("scf.yield", self._inner_rows(carried, prefetched))
            with ir.InsertionPoint(either.regions[1].blocks.append()):
                create("scf.yield", self._row_by_row(carried))
            made = list(either.results)
        return made if self._lookahead == 0 else list(totals)

    def _is_inner(self) -> ir.Value | None:
        """Whether all rows have results and read nothing beyond the first row or the last; None if always."""
        least, most = self._reach()
        most += self._phase.strip - 1
        conditions = []
        if least < self._phase.warm_up:
            conditions.append(arith("cmpi_sge", self._row, index(-least)))
        if most > 0:
            conditions.append(arith("cmpi_slt", self._row, index(self._layout.rows - most)))
        if self._phase.strip > 1:
            end = arith("addi", self._row, index(self._phase.strip))
            conditions.append(arith("cmpi_sge", self._frame.high, end))
        if self._warms_up:
            conditions.append(self._has_results())
        return functools.reduce(lambda one, other: arith("andi", one, other), conditions) if conditions else None

    def _reach(self) -> tuple[int, int]:
        """The least and the largest offset at which rows are read."""
        results = self._phase.results if self._lookahead == 0 else []
        stencils = [self._phase.reads_of_result(value) for value in results]
        stencils += [self._phase.reads(value) for value in self._own]
        reach = {self._lookahead + at for stencil in stencils for offsets in stencil.values() for at in offsets}
        return min(reach), max(reach)

    def _has_results(self) -> ir.Value:
        """Whether the row is one of the workgroup's own, and does not only warm up line buffers."""
        return arith("cmpi_sge", self._row, self._frame.low)

    def _inner_rows(self, carried: Sequence[ir.Value], prefetched: set[ir.Value]) -> list[ir.Value]:
        """The columns of inner rows: a loop over whole vectors, then the remaining columns in a mask."""
        frame = self._frame
        whole = Loop(frame.begin, frame.full, index(self._lanes), carried)
        with ir.InsertionPoint(whole.body):
            columns = Columns(frame, self._row, self._addresses(whole.op), whole.variable, own=self._own)
            totals = self._compute(columns, self._phase.strip, whole.arguments)
            if self._phase.strip > 1 or self._layout.blocks > 1:
                columns.prefetch(self._phase.strip, prefetched)
            whole.finish(totals)
        if self._layout.columns % self._lanes == 0:
            return whole.results
        remain = arith("cmpi_slt", frame.full, frame.end)
        rest = create("scf.if", [remain], [each.type for each in carried], regions=2)
        with ir.InsertionPoint(rest.regions[0].blocks.append()):
            mask = frame.vectors.mask(arith("subi", frame.end, frame.full))
            addresses = self._addresses(rest)
            columns = Columns(frame, self._row, addresses, frame.full, own=self._own, read=mask, write=mask)
            create("scf.yield", self._compute(columns, self._phase.strip, whole.results))
        with ir.InsertionPoint(rest.regions[1].blocks.append()):
            create("scf.yield", whole.results)
        return list(rest.results)

    def _row_by_row(self, carried: Sequence[ir.Value]) -> list[ir.Value]:
        """The columns of rows at the edges, one row of the strip after the other."""
        if self._phase.strip == 1:
            return self._row_at_edges(carried)
        end = arith("minsi", arith("addi", self._row, index(self._phase.strip)), self._frame.high)
        rows = Loop(self._row, end, self._frame.one, carried)
        with ir.InsertionPoint(rows.body):
            row = Stage(self._frame, rows.variable, self._lookahead)
            rows.finish(row._row_at_edges(rows.arguments))
        return rows.results

    def _row_at_edges(self, carried: Sequence[ir.Value]) -> list[ir.Value]:
        """The columns of a row that may read beyond the first row or the last, all in a mask."""
        frame = self._frame
        # A row that only warms up writes nothing but line buffers.
        written = select(self._has_results(), frame.end, frame.begin) if self._warms_up else None
        loop = Loop(frame.begin, frame.end, index(self._lanes), carried)
        with ir.InsertionPoint(loop.body):
            read = frame.vectors.mask(arith("subi", frame.end, loop.variable))
            write = read if written is None else frame.vectors.mask(arith("subi", written, loop.variable))
            addresses = self._addresses(loop.op)
            columns = Columns(
                frame, self._row, addresses, loop.variable, own=self._own, read=read, write=write, at_edges=True
            )
            loop.finish(self._compute(columns, 1, loop.arguments))
        return loop.results

    def _compute(self, columns: Columns, strip: int, totals: Iterable[ir.Value]) -> list[ir.Value]:
        """Compute all values of this stage for a vector of columns, and return the totals."""
        columns.fill_line_buffers()
        if self._lookahead != 0:
            return []
        found = columns.results(strip, list(totals))
        columns.leave(strip - 1)
        return found

    def _addresses(self, loop: ir.Operation) -> Addresses:
        return Addresses(self._frame, self._row, loop, first=self._phase.warm_up)


def leave_row_before(frame: Frame) -> None:
    """Leave to the first strip the carried values of the row before it, which may be row -1."""
    row = arith("subi", frame.low, frame.one)
    loop = Loop(frame.begin, frame.end, index(frame.vectors.lanes), [])
    with ir.InsertionPoint(loop.body):
        read = frame.vectors.mask(arith("subi", frame.end, loop.variable))
        addresses = Addresses(frame, row, loop.op, first=1)
        columns = Columns(frame, row, addresses, loop.variable, own={}, read=read, write=read, at_edges=True)
        columns.leave(0)
        loop.finish([])
