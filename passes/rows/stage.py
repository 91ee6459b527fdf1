"""The loops over the columns of a row, and what is computed in them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sonew_compiled.passes.ir.constants import is_splat
from sonew_compiled.passes.ir.elementwise import is_elementwise
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import owner
from sonew_compiled.passes.rows.loops import Loop, arith, i32, index, select
from sonew_compiled.passes.rows.vectors import create

if TYPE_CHECKING:
    from sonew_compiled.passes.rows.kernel import Body


class Stage:
    """What is computed in one pass over the columns of a row, or of a strip of rows: everything of one lead.

    Args:
      body: of the kernel.
      row: the first row.
      lead: how many rows on from it things are computed.
      strip: how many rows are.
      precedes: whether the row itself may be one before the first.
    """

    def __init__(self, body: Body, row: ir.Value, lead: int, *, strip: int = 1, precedes: bool = False) -> None:
        self.body = body
        self.strip = strip
        self._first = 1 if precedes else body.phase.warm_up
        self.phase = body.phase
        self.vectors = body.vectors
        self.row = row
        self.lead = lead
        self.rings = [value for value, ring in self.phase.rings.items() if ring.lead == lead]
        self.results = self.phase.results if lead == 0 else []
        self._offsets: dict[int, ir.Value] = {}
        self._columns: dict[int, ir.Value] = {}
        self._outside: dict[int, ir.Value] = {}
        self._slots: dict[tuple[ir.Value, int], ir.Value] = {}

    def create(self, totals: Sequence[ir.Value]) -> list[ir.Value]:
        """Make the loops, and return what is reduced until here."""
        carried = list(totals) if self.lead == 0 else []
        inner = self._is_inner()
        if inner is None:
            made = self._inside(carried)
        else:
            either = create("scf.if", [inner], [each.type for each in carried], regions=2)
            with ir.InsertionPoint(either.regions[0].blocks.append()):
                create("scf.yield", self._inside(carried))
            with ir.InsertionPoint(either.regions[1].blocks.append()):
                create("scf.yield", self._row_by_row(carried))
            made = list(either.results)
        return made if self.lead == 0 else list(totals)

    def leave(self) -> None:
        """Make the loop that computes nothing but what the strip after this row is to find."""
        columns = Loop(self.body.begin, self.body.end, index(self.vectors.lanes), [])
        self._before = columns.op
        with ir.InsertionPoint(columns.body):
            read = self.vectors.mask(arith("subi", self.body.end, columns.variable))
            _Vector(self, columns.variable, read, read, at_edges=True).leave()
            columns.finish([])

    def _is_inner(self) -> ir.Value | None:
        """Whether all rows have results, and none reads beyond the first row or the last; None if that is always so."""
        body, kernel = self.body, self.body.kernel
        least, most = self._reach()
        most += self.strip - 1
        conditions = []
        if least < self.phase.warm_up:
            conditions.append(arith("cmpi_sge", self.row, index(-least)))
        if most > 0:
            conditions.append(arith("cmpi_slt", self.row, index(kernel.rows - most)))
        if self.strip > 1:
            conditions.append(arith("cmpi_sge", body.high, arith("addi", self.row, index(self.strip))))
        if self._warms_up():
            conditions.append(self._is_ready())
        return functools.reduce(lambda one, other: arith("andi", one, other), conditions) if conditions else None

    def _warms_up(self) -> bool:
        """Whether results are computed here, and there are rows before the first of them."""
        return self.phase.warm_up > 0 and self.lead == 0

    def _is_ready(self) -> ir.Value:
        return arith("cmpi_sge", self.row, self.body.low)

    def _inside(self, carried: Sequence[ir.Value]) -> list[ir.Value]:
        """The columns of inner rows: a loop over whole vectors, and what remains in a mask."""
        body = self.body
        whole = Loop(body.begin, body.full, index(self.vectors.lanes), carried)
        self._before = whole.op
        with ir.InsertionPoint(whole.body):
            whole.finish(_Vector(self, whole.variable).create(whole.arguments))
        if body.kernel.columns % self.vectors.lanes == 0:
            return whole.results
        rest = create("scf.if", [arith("cmpi_slt", body.full, body.end)], [each.type for each in carried], regions=2)
        self._before = rest
        self._slots.clear()
        with ir.InsertionPoint(rest.regions[0].blocks.append()):
            mask = self.vectors.mask(arith("subi", body.end, body.full))
            create("scf.yield", _Vector(self, body.full, mask, mask).create(whole.results))
        with ir.InsertionPoint(rest.regions[1].blocks.append()):
            create("scf.yield", whole.results)
        return list(rest.results)

    def _row_by_row(self, carried: Sequence[ir.Value]) -> list[ir.Value]:
        """The columns of other rows, in the slow body."""
        if self.strip == 1:
            return self._slow(carried)
        after = arith("minsi", arith("addi", self.row, index(self.strip)), self.body.high)
        rows = Loop(self.row, after, self.body.one, carried)
        with ir.InsertionPoint(rows.body):
            rows.finish(Stage(self.body, rows.variable, self.lead)._slow(rows.arguments))
        return rows.results

    def _slow(self, carried: Sequence[ir.Value]) -> list[ir.Value]:
        end = self.body.end
        # In a row that only warms up nothing is written but rings.
        written = select(self._is_ready(), end, self.body.begin) if self._warms_up() else None
        slow = Loop(self.body.begin, end, index(self.vectors.lanes), carried)
        self._before = slow.op
        self._slots.clear()
        with ir.InsertionPoint(slow.body):
            read = self.vectors.mask(arith("subi", end, slow.variable))
            write = read if written is None else self.vectors.mask(arith("subi", written, slow.variable))
            slow.finish(_Vector(self, slow.variable, read, write, at_edges=True).create(slow.arguments))
        return slow.results

    def _reach(self) -> tuple[int, int]:
        """The least and the largest number of rows on at which something is read."""
        cones = [self.phase.cone(value) for value in self.results]
        cones += [self.phase.reads(value) for value in self.rings]
        reach = {self.lead + shift for cone in cones for shifts in cone.values() for shift in shifts}
        return min(reach), max(reach)

    def offset(self, on: int) -> ir.Value:
        """Where in memory the row that is so many on begins."""
        if on not in self._offsets:
            rows, columns = self.body.kernel.rows, self.body.kernel.columns
            with ir.InsertionPoint(self._before):
                row = self._row(on)
                here = arith("muli", row, index(columns))
                if on < self._first:
                    before = arith("addi", here, index(rows * columns - 1))
                    here = select(arith("cmpi_slt", row, self.body.zero), before, here)
                if on > 0:
                    after = arith("addi", here, index(1 - rows * columns))
                    here = select(arith("cmpi_sge", row, index(rows)), after, here)
                self._offsets[on] = here
        return self._offsets[on]

    def slot(self, value: ir.Value, on: int) -> ir.Value:
        """Where in its ring the row that is so many on begins."""
        if (value, on) not in self._slots:
            ring = self.phase.rings[value]
            with ir.InsertionPoint(self._before):
                row = arith("andi", self._row(on), index(ring.rows - 1))
                size = padded(self.body.kernel.block, self.vectors.lanes)
                self._slots[value, on] = arith("muli", row, index(size))
        return self._slots[value, on]

    def outside(self, on: int, wraps: bool, column: ir.Value) -> ir.Value:
        """Which lanes have no element in the row that is so many on."""
        rows, columns = self.body.kernel.rows, self.body.kernel.columns
        if wraps:
            if on not in self._columns:
                with ir.InsertionPoint(self._before):
                    row = self._row(on)
                    before = arith("cmpi_slt", row, self.body.zero)
                    after = arith("cmpi_sge", row, index(rows))
                    none = select(after, i32(columns - 1), i32(-1))
                    self._columns[on] = self.vectors.broadcast(select(before, i32(0), none))
            return self.vectors.equal(column, self._columns[on])
        if on not in self._outside:
            with ir.InsertionPoint(self._before):
                row = self._row(on)
                before = arith("cmpi_slt", row, self.body.zero)
                after = arith("cmpi_sge", row, index(rows))
                self._outside[on] = self.vectors.broadcast(arith("ori", before, after))
        return self._outside[on]

    def _row(self, on: int) -> ir.Value:
        return arith("addi", self.row, index(on)) if on else self.row


class _Vector:
    """The computation of one vector of columns.

    Args:
      stage: whose rows.
      column: the first.
      read: masks what is loaded; None for a whole vector.
      write: masks what is stored and reduced.
      at_edges: whether rows may be read beyond the first and the last.
    """

    def __init__(
        self,
        stage: Stage,
        column: ir.Value,
        read: ir.Value | None = None,
        write: ir.Value | None = None,
        *,
        at_edges: bool = False,
    ) -> None:
        self._stage = stage
        self._column = column
        self._read = read
        self._write = write
        self._made: dict[tuple[ir.Value, int], ir.Value] = {}
        # The first lane's element in the row itself, and the numbers of the columns.
        here = arith("muli", stage.row, index(stage.body.kernel.columns))
        self._here = arith("addi", here, column)
        self._numbers = self._lanes() if at_edges else None

    def create(self, totals: Sequence[ir.Value]) -> list[ir.Value]:
        """Make it, and return what is reduced until here."""
        stage, body, vectors = self._stage, self._stage.body, self._stage.vectors
        for value in stage.rings:
            computed = self.computed(value, stage.lead)
            vectors.store(computed, body.rings[value], self._in_ring(value, stage.lead), element_type(value))
        totals = list(totals)
        for on in range(stage.strip if stage.results else 0):
            results = {value: self.at(value, on) for value in stage.results}
            for value, memory in body.stored.items():
                vectors.store(results[value], memory, self._in_matrix(on), element_type(value), self._write)
            for number, (value, combine, _) in enumerate(body.partial):
                combined = vectors.combine(combine, totals[number], results[value], value)
                kept = combined if self._write is None else vectors.select(self._write, combined, totals[number])
                totals[number] = kept
        self.leave()
        if self._read is None and (stage.strip > 1 or body.kernel.blocks > 1):
            self._prefetch()
        return totals

    def leave(self) -> None:
        """Store what the next strip is to find, all of it computed before, from what this one found."""
        stage = self._stage
        last = {value: self.at(value, stage.strip - 1) for value in stage.body.carried}
        for value, memory in stage.body.carried.items():
            stage.vectors.store(last[value], memory, self._in_block(), element_type(value))

    def _prefetch(self) -> None:
        """Fetch what the next strip is the first to load, where it does not go on where this one ends.

        Processors foresee what follows in memory, but not that.
        """
        body = self._stage.body
        farthest: dict[ir.Value, int] = {}
        for value, on in self._made:
            if value in body.memory and value not in body.prefetched:
                farthest[value] = max(on, farthest.get(value, on))
        body.prefetched |= farthest.keys()
        for value, on in farthest.items():
            for row in range(on + 1, on + 1 + self._stage.strip):
                self._stage.vectors.prefetch(body.memory[value], self._in_matrix(row))

    def at(self, value: ir.Value, on: int) -> ir.Value:
        """The value in the row that is so many on."""
        if (value, on) not in self._made:
            self._made[value, on] = self._fetched(value, on)
        return self._made[value, on]

    def _fetched(self, value: ir.Value, on: int) -> ir.Value:
        stage = self._stage
        if is_splat(value):
            return self._splat(value)
        if value in stage.phase.rings and not (value in stage.rings and on == stage.lead):
            return stage.vectors.load(stage.body.rings[value], self._in_ring(value, on), element_type(value))
        if value in stage.body.carried and on == -1 and self._numbers is None:
            return stage.vectors.load(stage.body.carried[value], self._in_block(), element_type(value))
        if value in stage.body.memory:
            at = self._in_matrix(on)
            return stage.vectors.load(stage.body.memory[value], at, element_type(value), self._read)
        return self.computed(value, on)

    def computed(self, value: ir.Value, on: int) -> ir.Value:
        """The value in the row that is so many on, as what makes it computes it."""
        if (value, on) in self._made:
            return self._made[value, on]
        stage, op = self._stage, owner(value)
        assert op is not None, value
        if op.name == "stablehlo.select" and op in stage.phase.rare.get(op.operands[0], ()):
            self._choose(op.operands[0], on)
            return self._made[value, on]
        if is_elementwise(op):
            operands = [self.at(each, on) if shape_of(each) else self._stage.body.number(each) for each in op.operands]
            result = self._stage.vectors.elementwise(op, operands)
        else:
            shift = self._stage.phase.group.shifts[op]
            result = self.at(shift.source, on + shift.by)
            if self._numbers is not None:
                outside = self._stage.outside(on + shift.by, shift.wraps, self._numbers)
                result = self._stage.vectors.select(outside, self._splat(shift.fill), result)
        self._made[value, on] = result
        return result

    def _choose(self, condition: ir.Value, on: int) -> None:
        """Make all choices of a condition, the first sides only if some lane takes them."""
        choices = self._stage.phase.rare[condition]
        where = self.at(condition, on)
        usual = [self.at(op.operands[2], on) for op in choices]
        branch = create("scf.if", [self._stage.vectors.reduced("or", where)], [each.type for each in usual], regions=2)
        made = dict(self._made)
        with ir.InsertionPoint(branch.regions[0].blocks.append()):
            rare = [self.at(op.operands[1], on) for op in choices]
            pairs = zip(rare, usual, strict=True)
            create("scf.yield", [self._stage.vectors.select(where, yes, no) for yes, no in pairs])
        # What was made within the branch is not there outside of it.
        self._made = made
        with ir.InsertionPoint(branch.regions[1].blocks.append()):
            create("scf.yield", usual)
        self._made |= zip(((op.results[0], on) for op in choices), branch.results, strict=True)

    def _in_ring(self, value: ir.Value, on: int) -> ir.Value:
        return arith("addi", self._stage.slot(value, on), self._in_block())

    def _in_block(self) -> ir.Value:
        return arith("subi", self._column, self._stage.body.begin)

    def _in_matrix(self, on: int) -> ir.Value:
        if self._numbers is not None:
            return arith("addi", self._stage.offset(on), self._column)
        return arith("addi", self._here, index(on * self._stage.body.kernel.columns)) if on else self._here

    def _splat(self, value: ir.Value) -> ir.Value:
        op = owner(value)
        assert op is not None, value
        return self._stage.body.number(op.operands[0] if op.name == "stablehlo.broadcast_in_dim" else value)

    def _lanes(self) -> ir.Value:
        i32 = ir.IntegerType.get_signless(32)
        lanes = self._stage.vectors.lanes
        kind = ir.VectorType.get([lanes], i32)
        each = ir.DenseElementsAttr.get([ir.IntegerAttr.get(i32, lane) for lane in range(lanes)], type=kind)
        counted = create("arith.constant", results=[kind], attributes={"value": each}).result
        here = create("arith.index_cast", [self._column], [i32]).result
        return self._stage.vectors.binary("arith.addi", self._stage.vectors.broadcast(here), counted)


def padded(count: int, unit: int) -> int:
    """The least multiple of the unit that is no less than the count."""
    return math.ceil(count / unit) * unit
