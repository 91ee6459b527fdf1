"""The computation of one vector of columns, in a row or in a strip of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sonew_compiled.passes.ir.build import create
from sonew_compiled.passes.ir.constants import is_splat
from sonew_compiled.passes.ir.elementwise import is_elementwise
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import owner
from sonew_compiled.passes.rows.addresses import Addresses
from sonew_compiled.passes.rows.frame import Frame
from sonew_compiled.passes.rows.loops import arith, index, select


class Columns:
    """Makes the computation of a vector of columns, each value once in each row.

    Args:
      frame: the kernel's.
      row: the row from which offsets are counted.
      addresses: of the rows near it.
      column: the first column.
      own: the line buffers' values that are computed here, each with the offset of its row; others are read.
      read: the mask of the loads; None for a whole vector.
      write: the mask of the stores and reductions; None for a whole vector.
      at_edges: whether rows before the first one and after the last one may be read.
    """

    def __init__(
        self,
        frame: Frame,
        row: ir.Value,
        addresses: Addresses,
        column: ir.Value,
        *,
        own: Mapping[ir.Value, int],
        read: ir.Value | None = None,
        write: ir.Value | None = None,
        at_edges: bool = False,
    ) -> None:
        self._frame = frame
        self._vectors = frame.vectors
        self._addresses = addresses
        self._column = column
        self._own = own
        self._read = read
        self._write = write
        # The vectors made so far, by value and offset.
        self._made: dict[tuple[ir.Value, int], ir.Value] = {}
        # The index of the first lane's element in the row itself.
        self._here = arith("addi", arith("muli", row, index(frame.layout.columns)), column)
        self._numbers = self._column_numbers() if at_edges else None

    def fill_line_buffers(self) -> None:
        """Compute a row of each line buffer in `own`."""
        for value, at in self._own.items():
            computed = self._computed(value, at)
            self._vectors.store(computed, self._frame.buffers[value], self._in_buffer(value, at), element_type(value))

    def results(self, strip: int, totals: Sequence[ir.Value]) -> list[ir.Value]:
        """Store the results of `strip` rows, and return the totals with these rows' values added in."""
        totals = list(totals)
        self._compute_side_by_side(strip)
        for at in range(strip):
            results = {value: self._at(value, at) for value in self._frame.layout.phase.results}
            for value, memory in self._frame.stored.items():
                self._vectors.store(results[value], memory, self._in_matrix(at), element_type(value), self._write)
            for number, each in enumerate(self._frame.reduced):
                total = self._vectors.combine(each.combine, totals[number], results[each.value], each.value)
                totals[number] = total if self._write is None else select(self._write, total, totals[number])
        return totals

    def _compute_side_by_side(self, strip: int) -> None:
        """Compute the rows of a strip operation by operation, so that none has to wait for the one before in its row.

        A processor looks ahead no further than some hundred instructions, which may be less than a row takes.
        """
        phase = self._frame.layout.phase
        if strip == 1 or phase.rare:  # a branch computes what it needs itself
            return
        needed: dict[ir.Value, set[int]] = {}
        waiting = [(value, at) for value in phase.results for at in range(strip)]
        waiting += [(value, strip - 1) for value in phase.carried]
        while waiting:
            value, at = waiting.pop()
            op = owner(value)
            if op in phase.group.inside and at not in needed.get(value, ()) and not self._is_read(value, at):
                needed.setdefault(value, set()).add(at)
                waiting += [(operand, at + shift) for operand, shift in phase.group.reads(op)]
        for op in phase.operations():
            for at in sorted(needed.get(op.results[0], ())):
                self._at(op.results[0], at)

    def leave(self, at: int) -> None:
        """Leave the carried values of a row to the next strip; compute all before overwriting any."""
        last = {value: self._at(value, at) for value in self._frame.carried}
        for value, memory in self._frame.carried.items():
            self._vectors.store(last[value], memory, self._in_block(), element_type(value))

    def prefetch(self, strip: int, prefetched: set[ir.Value]) -> None:
        """Prefetch the rows of inputs that the next strip is the first to load.

        Processors prefetch sequential loads themselves, but not those of a row that begins elsewhere. Inputs in
        `prefetched` are left out, since an earlier stage brings them to the cache. The inputs of this call are added.
        """
        farthest: dict[ir.Value, int] = {}
        for value, at in self._made:
            if value in self._frame.memory and value not in prefetched:
                farthest[value] = max(at, farthest.get(value, at))
        prefetched.update(farthest)
        for value, at in farthest.items():
            for row in range(at + 1, at + 1 + strip):
                self._vectors.prefetch(self._frame.memory[value], self._in_matrix(row))

    def _at(self, value: ir.Value, at: int) -> ir.Value:
        """The value in the row `at` rows further on."""
        if (value, at) not in self._made:
            self._made[value, at] = self._fetched(value, at)
        return self._made[value, at]

    def _fetched(self, value: ir.Value, at: int) -> ir.Value:
        """The value from its source: a constant, a line buffer, the strip before, an input, or its operation."""
        frame = self._frame
        if not self._is_read(value, at):
            return self._computed(value, at)
        if is_splat(value):
            return self._splat(value)
        if self._is_buffered(value, at):
            return self._vectors.load(frame.buffers[value], self._in_buffer(value, at), element_type(value))
        if self._is_carried(value, at):
            return self._vectors.load(frame.carried[value], self._in_block(), element_type(value))
        here = self._column if value in frame.layout.repeated else self._in_matrix(at)
        return self._vectors.load(frame.memory[value], here, element_type(value), self._read)

    def _is_read(self, value: ir.Value, at: int) -> bool:
        """Whether the value is a constant or in memory, rather than the result of an operation here."""
        in_memory = value in self._frame.memory or self._is_buffered(value, at) or self._is_carried(value, at)
        return in_memory or is_splat(value)

    def _is_buffered(self, value: ir.Value, at: int) -> bool:
        return value in self._frame.buffers and self._own.get(value) != at

    def _is_carried(self, value: ir.Value, at: int) -> bool:
        return value in self._frame.carried and at == -1 and self._numbers is None

    def _computed(self, value: ir.Value, at: int) -> ir.Value:
        """The value in the row `at` rows further on, computed by its operation."""
        if (value, at) not in self._made:
            op = owner(value)
            assert op is not None, value
            if op.name == "stablehlo.select" and op in self._frame.layout.phase.rare.get(op.operands[0], ()):
                self._choose(op.operands[0], at)
            elif is_elementwise(op):
                operands = [self._at(each, at) if shape_of(each) else self._frame.scalar(each) for each in op.operands]
                self._made[value, at] = self._vectors.elementwise(op, operands)
            else:
                self._made[value, at] = self._shifted(op, at)
        return self._made[value, at]

    def _shifted(self, op: ir.Operation, at: int) -> ir.Value:
        shift = self._frame.layout.phase.group.shifts[op]
        result = self._at(shift.source, at + shift.by)
        if self._numbers is None:
            return result
        outside = self._addresses.outside(at + shift.by, wraps=shift.wraps, columns=self._numbers)
        return select(outside, self._splat(shift.fill), result)

    def _choose(self, condition: ir.Value, at: int) -> None:
        """Make all selects of a condition; compute their first sides in a branch, taken if some lane needs them."""
        selects = self._frame.layout.phase.rare[condition]
        where = self._at(condition, at)
        usual = [self._at(op.operands[2], at) for op in selects]
        some = self._vectors.reduced("or", where)
        branch = create("scf.if", [some], [each.type for each in usual], regions=2)
        made = dict(self._made)
        with ir.InsertionPoint(branch.regions[0].blocks.append()):
            rare = [self._at(op.operands[1], at) for op in selects]
            create("scf.yield", [select(where, yes, no) for yes, no in zip(rare, usual, strict=True)])
        # Values of the branch do not exist outside of it.
        self._made.clear()
        self._made.update(made)
        with ir.InsertionPoint(branch.regions[1].blocks.append()):
            create("scf.yield", usual)
        self._made.update(zip(((op.results[0], at) for op in selects), branch.results, strict=True))

    def _in_buffer(self, value: ir.Value, at: int) -> ir.Value:
        return arith("addi", self._addresses.slot(value, at), self._in_block())

    def _in_block(self) -> ir.Value:
        return arith("subi", self._column, self._frame.begin)

    def _in_matrix(self, at: int) -> ir.Value:
        if self._numbers is not None:
            return arith("addi", self._addresses.offset(at), self._column)
        return arith("addi", self._here, index(at * self._frame.layout.columns)) if at else self._here

    def _splat(self, value: ir.Value) -> ir.Value:
        op = owner(value)
        assert op is not None, value
        return self._frame.scalar(op.operands[0] if op.name == "stablehlo.broadcast_in_dim" else value)

    def _column_numbers(self) -> ir.Value:
        """A vector of the columns' numbers."""
        i32 = ir.IntegerType.get_signless(32)
        lanes = self._vectors.lanes
        kind = ir.VectorType.get([lanes], i32)
        each = ir.DenseElementsAttr.get([ir.IntegerAttr.get(i32, lane) for lane in range(lanes)], type=kind)
        counted = create("arith.constant", results=[kind], attributes={"value": each}).result
        here = create("arith.index_cast", [self._column], [i32]).result
        return self._vectors.binary("arith.addi", self._vectors.broadcast(here), counted)
