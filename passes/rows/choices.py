"""Selects one side of which is seldom taken, and is computed in a branch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import owner
from sonew_compiled.passes.rows.group import RowGroup
from sonew_compiled.passes.rows.phase import LineBuffer


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Selects whose first side is rare.

    Attributes:
      usual: the second sides that a line buffer nearly computes, each with that buffer's lookahead, at which it is
        computed too.
      rare: the selects by their condition.
    """

    usual: Mapping[ir.Value, int]
    rare: Mapping[ir.Value, Sequence[ir.Operation]]


def rare_choices(
    group: RowGroup,
    results: Collection[ir.Value],
    buffers: Mapping[ir.Value, LineBuffer],
    known: Collection[ir.Value],
    recompute: int,
) -> Choices:
    """The selects between a value that is nearly computed and one that is not.

    If a line buffer that runs ahead computes most of the second side of a select, that side is computed ahead as well.
    The first side is then the exception, and only a vector with a lane that takes it computes it.
    """
    operations = _operations(group, results, buffers, known)
    ahead = _ahead(group, buffers, known)
    usual: dict[ir.Value, int] = {}
    rare: dict[ir.Value, list[ir.Operation]] = {}
    for op in operations:
        if op.name != "stablehlo.select" or not shape_of(op.operands[0]):
            continue
        condition, first, second = op.operands
        shared = _side(group, second, operations, known)
        if len(_side(group, first, operations, known) - shared) <= recompute:
            continue
        rare.setdefault(condition, []).append(op)
        lookaheads = [lookahead for lookahead, computed in ahead if len(shared & computed) > recompute]
        if lookaheads:
            usual[second] = max(lookaheads)
    return Choices(usual=usual, rare=_with_usual_side(rare, usual))


def _operations(
    group: RowGroup,
    results: Collection[ir.Value],
    buffers: Mapping[ir.Value, LineBuffer],
    known: Collection[ir.Value],
) -> dict[ir.Operation, None]:
    """The operations that compute the results and the line buffers, in order, without repetition."""
    operations: dict[ir.Operation, None] = {}
    for value in (*(each for each in results if each not in buffers), *buffers):
        operations |= dict.fromkeys(group.computed(value, known))
    return operations


def _ahead(
    group: RowGroup, buffers: Mapping[ir.Value, LineBuffer], known: Collection[ir.Value]
) -> list[tuple[int, set[ir.Operation]]]:
    """For each line buffer that runs ahead of the results, its lookahead and the operations that compute it."""
    running = {value: buffer.lookahead for value, buffer in buffers.items() if buffer.lookahead > 0}
    return [(lookahead, set(group.computed(value, known))) for value, lookahead in running.items()]


def _side(
    group: RowGroup, value: ir.Value, operations: Collection[ir.Operation], known: Collection[ir.Value]
) -> set[ir.Operation]:
    """The operations that compute a side of a select; none if it is already known."""
    if owner(value) not in operations or value in known:
        return set()
    return set(group.computed(value, known))


def _with_usual_side(
    rare: Mapping[ir.Value, Sequence[ir.Operation]], usual: Collection[ir.Value]
) -> dict[ir.Value, Sequence[ir.Operation]]:
    """The selects whose condition has a select with a usual side."""
    return {
        condition: selects for condition, selects in rare.items() if any(each.operands[2] in usual for each in selects)
    }
