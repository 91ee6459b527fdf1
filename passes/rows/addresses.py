"""The addresses of the rows near a row, computed once before a loop over columns."""

from __future__ import annotations

from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.rows.frame import Frame
from sonew_compiled.passes.rows.layout import padded
from sonew_compiled.passes.rows.loops import arith, i32, index, select


class Addresses:
    """Makes the addresses of rows, each once, before the loop over columns that uses them.

    Rows beyond the ends are read from the neighbouring column. Row -1 of a column is the last row of the column before,
    which in memory is the element before the last row's own. The row after the last one is the first row of the next
    column.

    Args:
      frame: the kernel's.
      row: the row from which offsets are counted.
      loop: the operation before which the addresses are computed.
      first: the least offset whose row is never before row 0.
    """

    def __init__(self, frame: Frame, row: ir.Value, loop: ir.Operation, *, first: int) -> None:
        self._frame = frame
        self._row = row
        self._loop = loop
        self._first = first
        self._offsets: dict[int, ir.Value] = {}
        self._slots: dict[tuple[ir.Value, int], ir.Value] = {}
        self._filled_columns: dict[int, ir.Value] = {}
        self._filled_rows: dict[int, ir.Value] = {}

    def offset(self, at: int) -> ir.Value:
        """The index in memory of the first element of the row `at` rows further on."""
        if at not in self._offsets:
            rows, columns = self._frame.layout.rows, self._frame.layout.columns
            with ir.InsertionPoint(self._loop):
                row = self._at(at)
                here = arith("muli", row, index(columns))
                if at < self._first:
                    before = arith("addi", here, index(rows * columns - 1))
                    here = select(arith("cmpi_slt", row, self._frame.zero), before, here)
                if at > 0:
                    after = arith("addi", here, index(1 - rows * columns))
                    here = select(arith("cmpi_sge", row, index(rows)), after, here)
                self._offsets[at] = here
        return self._offsets[at]

    def slot(self, value: ir.Value, at: int) -> ir.Value:
        """The index in the value's line buffer of the first element of the row `at` rows further on."""
        if (value, at) not in self._slots:
            layout = self._frame.layout
            buffer = layout.phase.buffers[value]
            with ir.InsertionPoint(self._loop):
                row = arith("andi", self._at(at), index(buffer.rows - 1))
                size = padded(layout.block, layout.vectors.lanes)
                self._slots[value, at] = arith("muli", row, index(size))
        return self._slots[value, at]

    def outside(self, at: int, *, wraps: bool, columns: ir.Value) -> ir.Value:
        """The lanes that hold a shift's fill in the row `at` rows further on.

        Args:
          at: the offset of the row.
          wraps: whether the shift wraps; a row beyond an end then holds the fill in one column alone.
          columns: a vector of the columns' numbers.
        """
        if wraps:
            return self._frame.vectors.equal(columns, self._filled_column(at))
        if at not in self._filled_rows:
            with ir.InsertionPoint(self._loop):
                before, after = self._beyond(at)
                self._filled_rows[at] = self._frame.vectors.broadcast(arith("ori", before, after))
        return self._filled_rows[at]

    def _filled_column(self, at: int) -> ir.Value:
        """A vector of the number of the column that holds the fill of a shift that wraps; -1 if none does."""
        if at not in self._filled_columns:
            with ir.InsertionPoint(self._loop):
                before, after = self._beyond(at)
                none = select(after, i32(self._frame.layout.columns - 1), i32(-1))
                self._filled_columns[at] = self._frame.vectors.broadcast(select(before, i32(0), none))
        return self._filled_columns[at]

    def _beyond(self, at: int) -> tuple[ir.Value, ir.Value]:
        """Whether the row `at` rows further on is before the first row, and whether it is after the last one."""
        row = self._at(at)
        before = arith("cmpi_slt", row, self._frame.zero)
        after = arith("cmpi_sge", row, index(self._frame.layout.rows))
        return before, after

    def _at(self, at: int) -> ir.Value:
        return arith("addi", self._row, index(at)) if at else self._row
