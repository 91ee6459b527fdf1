"""The values that are kept in line buffers, or carried to the next row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.rows.group import RowGroup
from sonew_compiled.passes.rows.phase import LineBuffer, united

# A value is carried to the next row that reads it if it takes at least this many operations.
_CARRIED = 4


def dear_values(
    group: RowGroup,
    results: Collection[ir.Value],
    before: Collection[ir.Value],
    known: Collection[ir.Value],
    recompute: int,
) -> list[ir.Value]:
    """The values whose recomputation for further offsets takes more than `recompute` operations, last first.

    The values in `before` are stored and not computed. The other values in `known` cost their readers nothing.
    """
    read: dict[ir.Value, set[int]] = {value: {0} for value in results}
    kept: list[ir.Value] = []
    for op in reversed(group.operations):
        value = op.results[0]
        offsets = read.get(value, set())
        if value in before or not offsets:
            continue
        if len(offsets) > 1 and group.takes_more(value, known, recompute / (len(offsets) - 1)):
            kept.append(value)
            offsets = {0}
        for operand, shift in group.reads(op):
            read.setdefault(operand, set()).update(each + shift for each in offsets)
    return kept


def line_buffers(
    group: RowGroup,
    results: Collection[ir.Value],
    kept: Sequence[ir.Value],
    known: Collection[ir.Value],
    at_least: Mapping[ir.Value, int],
) -> tuple[dict[ir.Value, LineBuffer], int]:
    """The line buffers of the values that are kept, and how many rows warm them up.

    Args:
      group: the group.
      results: the values that are computed for every row.
      kept: the values in line buffers, last first.
      known: these, and the values that were stored before.
      at_least: the lookahead that some of them must have.
    """
    # For each computed value: its first row, its lookahead and its stencil.
    computed = [(0, 0, {value: {0}} if value in known else group.stencil(value, known)) for value in results]
    buffers: dict[ir.Value, LineBuffer] = {}
    warm_up = 0
    for value in kept:
        readers = [(begin, ahead, stencil[value]) for begin, ahead, stencil in computed if value in stencil]
        # Stages run in the order of their lookahead, the largest first. So a stage can read only earlier rows of the
        # values of a later stage.
        needed = (ahead + max(offsets) + (max(offsets) < 0) for _, ahead, offsets in readers)
        lookahead = max(at_least.get(value, 0), *needed)
        oldest = min(ahead + min(offsets) for _, ahead, offsets in readers)
        begin = min(start + min(offsets) for start, _, offsets in readers)
        buffers[value] = LineBuffer(lookahead=lookahead, rows=1 << (lookahead - min(oldest, lookahead)).bit_length())
        own = {each: offsets for each, offsets in group.stencil(value, known).items() if each != value}
        computed.append((begin, lookahead, own))
        warm_up = max(warm_up, lookahead - begin)
    return buffers, warm_up


def carried_values(group: RowGroup, results: Collection[ir.Value], known: Collection[ir.Value]) -> list[ir.Value]:
    """The values whose row before only a shift by one row reads, and that take some operations to compute."""
    offsets = united(group.stencil(result, known) for result in results)
    # A shift that was stored before is loaded, and its operand is not computed here.
    made = {op: shift for op, shift in group.shifts.items() if op.results[0] not in known}
    before = [shift.source for op, shift in made.items() if shift.by == -1 and offsets.get(op.results[0]) == {0}]
    computed = [each for each in dict.fromkeys(before) if group.computes(each) and each not in known]
    return [each for each in computed if len(group.costs(each, known)) >= _CARRIED]
