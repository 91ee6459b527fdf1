"""Cutting a group into phases, each of which one kernel computes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type
from sonew_compiled.passes.ir.uses import at_top, owner
from sonew_compiled.passes.rows.buffers import carried_values, dear_values, line_buffers
from sonew_compiled.passes.rows.choices import rare_choices
from sonew_compiled.passes.rows.group import RowGroup
from sonew_compiled.passes.rows.phase import Phase
from sonew_compiled.passes.rows.reductions import FullReduction, full_reduction
from sonew_compiled.passes.rows.vectors import COMBINATIONS

# A separate phase for reductions reads matrices once more. That pays only if it lets at least this many arguments be
# overwritten.
_SPARED = 2

# The rows of a strip. With eight rows, a processor's prefetcher can no longer follow all the streams that are read.
_STRIP = 4

# More operations than these wait for each other for longer than a core looks ahead.
_LONG = 40


def phases_of(group: RowGroup, recompute: int) -> list[Phase]:
    """The phases of a group, in the order in which they must be computed.

    Args:
      group: the group.
      recompute: the most operations that may be repeated for each further offset at which a value is read; beyond that
        the value is kept in a line buffer. The same holds for each later phase that needs a value, which is then
        stored. If all values together repeat more than a quarter as many for a row, or a row takes many operations,
        rows are computed in strips.
    """
    reduced, stored = _results(group, recompute)
    phases = []
    for number in sorted({group.levels[value] for value in (*stored, *reduced)}):
        mine = {value: each for value, each in reduced.items() if group.levels[value] == number}
        written = [value for value in stored if group.levels[value] == number]
        before = {value for value in stored if group.levels[value] < number}
        phase = _phase(group, written, mine, before, recompute)
        late = _late(phase)
        if not late:
            phases.append(phase)
            continue
        # The first phase overwrites the stored matrices, and the reductions then read the results.
        early = {value: each for value, each in mine.items() if value not in late}
        phases.append(_phase(group, written, early, before, recompute))
        phases.append(_phase(group, [], late, {*before, *written}, recompute))
    return phases


def _late(phase: Phase) -> dict[ir.Value, Sequence[FullReduction]]:
    """The reductions that alone read other rows of at least `_SPARED` arguments, which so cannot be overwritten."""
    stored = [phase.reads_of_result(value) for value in phase.stored]
    own = {each for stencil in stored for each, offsets in stencil.items() if owner(each) is None and offsets == {0}}
    own -= {each for stencil in stored for each, offsets in stencil.items() if offsets != {0}}
    spoiled = {
        value: {each for each in own if phase.reads_of_result(value).get(each, {0}) != {0}} for value in phase.reduced
    }
    if len(set().union(*spoiled.values())) < _SPARED:
        return {}
    return {value: phase.reduced[value] for value, arguments in spoiled.items() if arguments}


def _results(group: RowGroup, recompute: int) -> tuple[dict[ir.Value, list[FullReduction]], list[ir.Value]]:
    """The values whose reductions a kernel computes, and the values that are stored."""
    reduced, read_outside = _read_outside(group)
    stored = read_outside | _stored_for_later(group, reduced, read_outside, recompute)
    return reduced, [op.results[0] for op in group.operations if op.results[0] in stored]


def _read_outside(group: RowGroup) -> tuple[dict[ir.Value, list[FullReduction]], set[ir.Value]]:
    """The values that reductions read, each with its reductions, and the values that others outside the group read."""
    reduced: dict[ir.Value, list[FullReduction]] = {}
    stored: set[ir.Value] = set()
    for op in group.operations:
        value = op.results[0]
        for user in {use.owner.operation for use in value.uses} - group.inside.keys():
            reduction = full_reduction(user) if at_top(user) == user else None
            if reduction is None or reduction.combine not in COMBINATIONS:
                stored.add(value)
            elif isinstance(element_type(value), ir.F32Type):
                reduced.setdefault(value, []).append(reduction)
            else:
                stored.add(value)
    return reduced, stored


def _stored_for_later(
    group: RowGroup, reduced: Collection[ir.Value], read_outside: Collection[ir.Value], recompute: int
) -> set[ir.Value]:
    """The values that later phases need and that are expensive to compute again."""
    stored = set(read_outside)
    # How many later phases need each value.
    later: dict[ir.Value, int] = {}
    # The phases that need each value. Operations are visited last first, so that all readers come before.
    needed: dict[ir.Value, set[int]] = {}
    for op in reversed(group.operations):
        value = op.results[0]
        own = {group.levels[value]}
        read = needed.get(value, set()) | (own if value in stored or value in reduced else set())
        later[value] = len(read | own) - 1
        if value not in stored and later[value] and later[value] * sum(group.costs(value, stored)) > recompute:
            stored.add(value)
        read = own if value in stored else read
        for operand, _ in group.reads(op):
            needed.setdefault(operand, set()).update(read)
    # Some of them are cheap to compute from others that are stored.
    for op in group.operations:
        value = op.results[0]
        if value in stored and value not in read_outside:
            stored.remove(value)
            if later[value] * sum(group.costs(value, stored)) > recompute:
                stored.add(value)
    return stored


def _phase(
    group: RowGroup,
    stored: Sequence[ir.Value],
    reduced: Mapping[ir.Value, Sequence[FullReduction]],
    before: Collection[ir.Value],
    recompute: int,
) -> Phase:
    results = {*stored, *reduced}
    kept = dear_values(group, results, before, before, recompute)
    # Repeated, because some operands of these values may now be in line buffers too.
    kept = dear_values(group, results, before, {*before, *kept}, recompute)
    known = {*before, *kept}
    buffers, warm_up = line_buffers(group, results, kept, known, {})
    choices = rare_choices(group, results, buffers, known, recompute)
    if choices.usual:
        known |= choices.usual.keys()
        kept = [op.results[0] for op in reversed(group.operations) if op.results[0] in known - set(before)]
        buffers, warm_up = line_buffers(group, results, kept, known, choices.usual)
    phase = Phase(
        group=group,
        stored=list(stored),
        reduced=dict(reduced),
        buffers=buffers,
        warm_up=warm_up,
        strip=1,
        carried=[] if buffers else carried_values(group, results, known),
        known=known,
        rare=choices.rare,
    )
    # A strip reads more streams of memory at once, which is slower for little computation.
    pays = phase.repeated() > recompute // _STRIP or len(phase.operations()) > _LONG
    return replace(phase, strip=_STRIP) if pays and not buffers else phase
