"""What of a group of matrices one kernel computes: everything between two reductions that follow each other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sonew_compiled.passes.ir.constants import is_splat
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import at_top, owner
from sonew_compiled.passes.rows.group import RowGroup
from sonew_compiled.passes.rows.reductions import FullReduction, full_reduction
from sonew_compiled.passes.rows.vectors import COMBINE, size_of

# To read them again costs more than it spares, if it is one alone.
_SPARED = 2

# As many others as a division or a root takes the time of, at least.
_SLOW = {"stablehlo.divide": 4, "stablehlo.rsqrt": 4, "stablehlo.sqrt": 4}

# What is computed by so many operations is left to the next strip, if that reads the last row of it.
_CARRIED = 4

# Rows of a strip: of eight, a processor no longer follows all that is read.
_STRIP = 4


@dataclass(frozen=True, kw_only=True)
class Ring:
    """A value that a kernel keeps the last rows of, in place of computing them for each shift at which they are read.

    Attributes:
      lead: how many rows ahead of the results it is computed.
      rows: how many of its rows are kept, a power of two.
    """

    lead: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What one kernel computes.

    Attributes:
      group: whose values these are.
      stored: values that are written whole.
      reduced: values of which only reductions are read, and these.
      rings: values whose last rows are kept.
      warm_up: rows before the first one of the results from which on the rings are computed.
      strip: rows of the results that are computed together, each value once for all that read it.
      carried: values of which a strip finds the row before its first where the strip before it left that.
      known: what is not looked into: stored before, or in a ring.
      rare: choices by their condition, of which the first side is computed only where some lane takes it.
    """

    group: RowGroup
    stored: Sequence[ir.Value]
    reduced: Mapping[ir.Value, Sequence[FullReduction]]
    rings: Mapping[ir.Value, Ring]
    warm_up: int
    strip: int
    carried: Collection[ir.Value]
    known: Collection[ir.Value] = field(repr=False)
    rare: Mapping[ir.Value, Sequence[ir.Operation]] = field(repr=False)

    @property
    def results(self) -> list[ir.Value]:
        """What is computed for every row: values stored and values reduced."""
        return list(dict.fromkeys([*self.stored, *self.reduced]))

    def reads(self, value: ir.Value) -> dict[ir.Value, set[int]]:
        """What computing a row of the value reads, and how many rows on, not looking into what is known."""
        return self.group.shifts_of(value, self.known)

    def cone(self, result: ir.Value) -> dict[ir.Value, set[int]]:
        """The same of a result, which may be in a ring itself."""
        return {result: {0}} if result in self.rings else self.reads(result)

    def leaves(self) -> list[ir.Value]:
        """The matrices that the kernel loads."""
        made = {op.results[0] for op in self.operations()} | self.rings.keys()
        cones = [self.cone(value) for value in self.results] + [self.reads(value) for value in self.rings]
        return list(dict.fromkeys(each for cone in cones for each in cone if each not in made and not is_splat(each)))

    def scalars(self) -> list[ir.Value]:
        """The numbers that it reads, constants apart: tensors of no axes."""
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
        """The operations that are done again for further shifts of what they compute; a slow one counts as several."""
        known = {*self.known, *self.carried}
        made = {*self.results, *self.carried}
        shifts = _united(self.group.shifts_of(each, known - {each}) for each in made)
        shifts |= {each: {0} for each in self.carried}
        computed = [op for op in self.operations() if op.results[0] in shifts]
        return sum((len(shifts[op.results[0]]) - 1) * _SLOW.get(op.name, 1) for op in computed)

    def reach(self) -> int:
        """How far from the first row of a workgroup, or from the last, rows are that are read or computed."""
        leads = [(0, self.cone(value)) for value in self.results]
        leads += [(ring.lead, self.reads(value)) for value, ring in self.rings.items()]
        farthest = max(abs(lead + shift) for lead, cone in leads for shifts in cone.values() for shift in shifts)
        return farthest + self.warm_up + 1

    def kept_bytes(self) -> int:
        """The bytes that the rings, or what is carried, take for every column."""
        kept = {value: ring.rows for value, ring in self.rings.items()} | dict.fromkeys(self.carried, 1)
        return sum(rows * size_of(element_type(value)) for value, rows in kept.items())

    def operations(self) -> list[ir.Operation]:
        """What the kernel computes."""
        targets = [*(each for each in self.results if each not in self.rings), *self.rings]
        return list(dict.fromkeys(op for value in targets for op in self.group.computed(value, self.known)))


def phases_of(group: RowGroup, recompute: int) -> list[Phase]:
    """The phases of a group, in the order in which they must be computed.

    Args:
      group: the group.
      recompute: operations that may be done again for every further shift at which a value is read, or in a later
        phase, before the value is kept in a ring, or stored; a quarter of them in all for a row, before rows are
        computed in strips.
    """
    reduced, stored = _results(group, recompute)
    phases = []
    for number in sorted({group.reductions[value] for value in (*stored, *reduced)}):
        mine = {value: each for value, each in reduced.items() if group.reductions[value] == number}
        written = [value for value in stored if group.reductions[value] == number]
        before = {value for value in stored if group.reductions[value] < number}
        phase = _phase(group, written, mine, before, recompute)
        late = _late(phase)
        if not late:
            phases.append(phase)
            continue
        # What is stored is overwritten first, and the reductions then read the results.
        early = {value: each for value, each in mine.items() if value not in late}
        phases.append(_phase(group, written, early, before, recompute))
        phases.append(_phase(group, [], late, {*before, *written}, recompute))
    return phases


def _late(phase: Phase) -> dict[ir.Value, Sequence[FullReduction]]:
    """The reductions that keep `_SPARED` arguments or more from being overwritten: they alone read other rows."""
    stored = [phase.cone(value) for value in phase.stored]
    own = {each for cone in stored for each, shifts in cone.items() if owner(each) is None and shifts == {0}}
    own -= {each for cone in stored for each, shifts in cone.items() if shifts != {0}}
    read = {value: {each for each in own if phase.cone(value).get(each, {0}) != {0}} for value in phase.reduced}
    if len(set().union(*read.values())) < _SPARED:
        return {}
    return {value: phase.reduced[value] for value, spoiled in read.items() if spoiled}


def _results(group: RowGroup, recompute: int) -> tuple[dict[ir.Value, list[FullReduction]], list[ir.Value]]:
    """The values whose reductions a kernel computes, and those that must be there as a whole."""
    reduced: dict[ir.Value, list[FullReduction]] = {}
    stored: set[ir.Value] = set()
    for op in group.operations:
        value = op.results[0]
        for user in {use.owner.operation for use in value.uses} - group.inside.keys():
            reduction = full_reduction(user) if at_top(user) == user else None
            if reduction is not None and reduction.combine in COMBINE and isinstance(element_type(value), ir.F32Type):
                reduced.setdefault(value, []).append(reduction)
            else:
                stored.add(value)
    # In how many phases each is needed, last first: what is needed later and dear is stored.
    needed: dict[ir.Value, set[int]] = {}
    for op in reversed(group.operations):
        value = op.results[0]
        own = {group.reductions[value]}
        read = needed.get(value, set()) | (own if value in stored or value in reduced else set())
        later = len(read | own) - 1
        if value not in stored and later and later * sum(group.costs(value, stored)) > recompute:
            stored.add(value)
        read = own if value in stored else read
        for operand, _ in group.reads(op):
            needed.setdefault(operand, set()).update(read)
    return reduced, [op.results[0] for op in group.operations if op.results[0] in stored]


def _phase(
    group: RowGroup,
    stored: Sequence[ir.Value],
    reduced: Mapping[ir.Value, Sequence[FullReduction]],
    before: Collection[ir.Value],
    recompute: int,
) -> Phase:
    results = {*stored, *reduced}
    kept = _dear(group, results, before, before, recompute)
    # Once more, now that what these are computed from may be known to be in rings too.
    kept = _dear(group, results, before, {*before, *kept}, recompute)
    known = {*before, *kept}
    rings, warm_up = _rings(group, results, kept, known, {})
    usual, rare = _rarely_chosen(group, results, rings, known, recompute)
    if usual:
        known |= usual.keys()
        kept = [op.results[0] for op in reversed(group.operations) if op.results[0] in known - set(before)]
        rings, warm_up = _rings(group, results, kept, known, usual)
    phase = Phase(
        group=group,
        stored=list(stored),
        reduced=dict(reduced),
        rings=rings,
        warm_up=warm_up,
        strip=1,
        carried=[] if rings else _carried(group, results, known),
        known=known,
        rare=rare,
    )
    # To follow more rows at once slows memory down.
    return replace(phase, strip=_STRIP) if not rings and phase.repeated() > recompute // _STRIP else phase


def _carried(group: RowGroup, results: Collection[ir.Value], known: Collection[ir.Value]) -> list[ir.Value]:
    """What is read of the row before, by nothing but a shift, and takes some operations to compute."""
    shifts = _united(group.shifts_of(result, known) for result in results)
    # A shift that was stored before is loaded, and what it reads is not computed here.
    made = {op: shift for op, shift in group.shifts.items() if op.results[0] not in known}
    before = [shift.source for op, shift in made.items() if shift.by == -1 and shifts.get(op.results[0]) == {0}]
    computed = [each for each in dict.fromkeys(before) if group.computes(each) and each not in known]
    return [each for each in computed if len(group.costs(each, known)) >= _CARRIED]


def _united(cones: Iterable[Mapping[ir.Value, set[int]]]) -> dict[ir.Value, set[int]]:
    """At which shifts any of the cones reads each value."""
    shifts: dict[ir.Value, set[int]] = {}
    for cone in cones:
        for value, read in cone.items():
            shifts.setdefault(value, set()).update(read)
    return shifts


def _rings(
    group: RowGroup,
    results: Collection[ir.Value],
    kept: Sequence[ir.Value],
    known: Collection[ir.Value],
    at_least: Mapping[ir.Value, int],
) -> tuple[dict[ir.Value, Ring], int]:
    """The rings of the values that are kept, those that read others first, and the rows to warm up.

    Args:
      group: the group.
      results: what is computed for every row.
      kept: what is kept in rings, last first.
      known: these, and what was stored before.
      at_least: the lead that some must have.
    """
    # Of everything computed: from which row on, how far ahead, and what it reads at which rows.
    cones = [(0, 0, {value: {0}} if value in known else group.shifts_of(value, known)) for value in results]
    rings: dict[ir.Value, Ring] = {}
    warm_up = 0
    for value in kept:
        readers = [(begin, lead, cone[value]) for begin, lead, cone in cones if value in cone]
        # Stages come with the largest lead first: what one reads of a later one must be of the row before.
        ahead = (at + max(shifts) + (max(shifts) < 0) for _, at, shifts in readers)
        lead = max(at_least.get(value, 0), *ahead)
        least = min(at + min(shifts) for _, at, shifts in readers)
        begin = min(start + min(shifts) for start, _, shifts in readers)
        rings[value] = Ring(lead=lead, rows=1 << (lead - min(least, lead)).bit_length())
        cones.append((begin, lead, {each: at for each, at in group.shifts_of(value, known).items() if each != value}))
        warm_up = max(warm_up, lead - begin)
    return rings, warm_up


def _rarely_chosen(
    group: RowGroup,
    results: Collection[ir.Value],
    rings: Mapping[ir.Value, Ring],
    known: Collection[ir.Value],
    recompute: int,
) -> tuple[dict[ir.Value, int], dict[ir.Value, list[ir.Operation]]]:
    """Choices between a value that is nearly there and one that is not.

    Where a ring's computation ahead of the results does most of what one side of a `select` takes, that side is
    computed there too, and the other side is the exception: only vectors in which some lane chooses it compute it.

    Returns:
      The usual sides, each with the lead at which it is computed; and the choices by their condition.
    """
    computed: dict[ir.Operation, None] = {}
    for value in (*(each for each in results if each not in rings), *rings):
        computed |= dict.fromkeys(group.computed(value, known))
    ahead = [(ring.lead, set(group.computed(value, known))) for value, ring in rings.items() if ring.lead > 0]
    choices = [op for op in computed if op.name == "stablehlo.select" and shape_of(op.operands[0])]
    usual: dict[ir.Value, int] = {}
    rare: dict[ir.Value, list[ir.Operation]] = {}
    for op in choices:
        condition, yes, no = op.operands
        if owner(yes) not in computed or yes in known:
            continue
        others = set(group.computed(no, known)) if owner(no) in computed and no not in known else set()
        if len(set(group.computed(yes, known)) - others) <= recompute:
            continue
        rare.setdefault(condition, []).append(op)
        leads = [lead for lead, theirs in ahead if len(others & theirs) > recompute]
        if leads:
            usual[no] = max(leads)
    conditions = {op.operands[0] for ops in rare.values() for op in ops if op.operands[2] in usual}
    rare = {condition: ops for condition, ops in rare.items() if condition in conditions}
    return usual, rare


def _dear(
    group: RowGroup,
    results: Collection[ir.Value],
    before: Collection[ir.Value],
    known: Collection[ir.Value],
    recompute: int,
) -> list[ir.Value]:
    """The values that cost more than `recompute` to compute again for their further shifts, last first.

    What was stored before is not computed; the others of `known` cost nothing to those that are computed from them.
    """
    read: dict[ir.Value, set[int]] = {value: {0} for value in results}
    kept: list[ir.Value] = []
    for op in reversed(group.operations):
        value = op.results[0]
        shifts = read.get(value, set())
        if value in before or not shifts:
            continue
        if len(shifts) > 1 and group.takes_more(value, known, recompute / (len(shifts) - 1)):
            kept.append(value)
            shifts = {0}
        for operand, shift in group.reads(op):
            read.setdefault(operand, set()).update(each + shift for each in shifts)
    return kept
