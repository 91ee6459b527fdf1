"""Compute the rows that a shift reads from elsewhere apart, so that all others read plain slices.

A tensor shifted along its leading axis is a concatenation: nearly all of its rows are a slice of the tensor, the few at
an edge come from somewhere else. Compilers write the concatenation out before anything reads it, and so an elementwise
computation over shifted tensors moves several times the memory that it must. Cut into edges and interior, it needs no
concatenation but the one of its results, which a compiler can have each part write its place of; the interior reads
slices, which are offsets into memory that is there.

    y = x + concatenate(x[1:], edge)      becomes      y = concatenate(x[:-1] + x[1:], x[-1:] + edge)

What several shifts of one value are read through is computed once for each, unless that is more work than `recompute`
operations: then it is written out and read back, its parts cut in the same way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection

from sonew_compiled.passes import _build as build
from sonew_compiled.passes._function import Function, functions, owner
from sonew_compiled.passes._inline import inline_calls
from sonew_compiled.passes._mlir import ir, run_mlir_passes
from sonew_compiled.passes._pass import Pass
from sonew_compiled.passes._row_parts import part
from sonew_compiled.passes._row_reductions import FullReduction, full_reduction
from sonew_compiled.passes._rows import RowGroup, is_concatenation
from sonew_compiled.passes.wire_donation import ALIASED

ELEMENTS = 1 << 14
"""Tensors of fewer elements are left alone: what their shifts cost is less than another dispatch does."""

RECOMPUTE = 48
"""Operations that may be done again for the further shifts of a value."""

# The edges are at most one row in so many, and so is what is added to them.
_EDGE_SHARE = 4
_ALIGNED_SHARE = 16

# Into how many pieces, added up element by element, the rows of what is only reduced are cut.
_FOLDS = 4
# What takes more operations is not: a sum's are then few, and the code for the pieces is long.
_FOLDED = 32


def peel_shifts(module: ir.Module, *, elements: int = ELEMENTS, recompute: int = RECOMPUTE) -> None:
    """Cut elementwise computations over shifted tensors of at least `elements` elements into edges and interior.

    Functions are inlined into the exports. Only shifts at the top level of these are seen, and those whose edges are at
    most a quarter of the rows. Results that are put together from parts lose their alias with an argument: see
    `_forget_aliases`.
    """
    inline_calls(module)
    # What is computed twice would be read twice.
    run_mlir_passes(module, "builtin.module(func.func(cse))")
    placed: set[ir.Value] = set()
    for function in functions(module):
        _give_each_reader_its_own_slice(function)
        for group in RowGroup.find(function, elements):
            placed |= _peel(group, elements, recompute)
        _forget_aliases(function, placed)
    run_mlir_passes(module, "builtin.module(func.func(cse))")


def _give_each_reader_its_own_slice(function: Function) -> None:
    """So that what only a group reads is seen to be its own; equal ones are one again in the end."""
    for op in reversed([each.operation for each in function.block.operations]):
        if op.name in ("stablehlo.slice", "stablehlo.concatenate") and not is_concatenation(op, 0):
            for use in list(op.results[0].uses)[1:]:
                with ir.InsertionPoint(op):
                    use.owner.operation.operands[use.operand_number] = op.clone().results[0]


def _peel(group: RowGroup, elements: int, recompute: int) -> set[ir.Value]:
    """Give every tensor of the group that something else reads in parts, and return what these are put together to."""
    written = group.written(recompute)
    cuts = _cuts(group.rows, group.columns, *group.edges(written))
    if not written or cuts is None:
        return set()
    placed: set[ir.Value] = set()
    wholes: dict[ir.Value, ir.Value] = {}
    for value in [op.results[0] for op in group.operations if op.results[0] in written]:
        uses = [(use.owner.operation, use.operand_number) for use in value.uses]
        outside = [use for use in uses if use[0] not in group.inside]
        reductions = {op: each for op, _ in outside if (each := full_reduction(op)) is not None}
        is_read = any(op not in reductions for op, _ in uses)
        ends = cuts if group.is_cut(value, written, joined=is_read) else [0, group.rows]
        with ir.InsertionPoint.after(owner(value)):
            combine = "" if is_read or sum(group.costs(value, wholes)) > _FOLDED else _common(reductions.values())
            spans = list(itertools.pairwise(ends))
            pieces = [_pieces(*span, group.columns, elements) if combine else [span] for span in spans]
            parts = [part(group, value, wholes, each, combine) for each in pieces]
            if is_read:
                wholes[value] = build.concatenate(parts, 0)
                placed |= {wholes[value]} if len(parts) > 1 else set()
                for operation, operand in outside:
                    if operation not in reductions:
                        operation.operands[operand] = wholes[value]
        for each in reductions.values():
            each.reduce_parts(parts)
    for op in reversed(group.inside):
        if not list(op.results[0].uses):
            op.erase()
    return placed


def _common(reductions: Collection[FullReduction]) -> str:
    """How all of these combine two numbers, empty if they do not do so alike."""
    names = {each.combine for each in reductions}
    return names.pop() if len(names) == 1 else ""


def _pieces(first: int, end: int, columns: int, elements: int) -> list[tuple[int, int]]:
    """Rows `first` up to `end` in `_FOLDS` pieces of one size, or in fewer; in one if they are less than `elements`."""
    count = (end - first) // math.gcd(end - first, _FOLDS if (end - first) * columns >= elements else 1)
    return [(start, start + count) for start in range(first, end, count)]


def _cuts(rows: int, columns: int, before: int, after: int) -> list[int] | None:
    """Where to cut the rows so that the first part and the last hold the edges, None if these are too many of all.

    The rows between are as many as can be reduced in `LANES`, and both edges of one size, where there are two: what is
    computed for either can then be one operation.
    """
    most = max(before, after)
    edges = 2 * most if before and after else most
    for step in (_FOLDS * 16 // math.gcd(columns, 16), _FOLDS):
        if edges and step * _ALIGNED_SHARE <= rows:
            edges += (rows - edges) % step
            break
    if edges * _EDGE_SHARE > rows:
        return None
    first = edges // 2 if after and before else edges if before else 0
    return list(dict.fromkeys([0, first, rows - edges + first, rows]))


def _forget_aliases(function: Function, placed: Collection[ir.Value]) -> None:
    """Let results that are put together from parts have memory of their own.

    IREE has each part write its place there, but does not see that it may when the memory is that of an argument: the
    whole is then copied to it in the end.
    """
    for attributes in function.argument_attributes:
        if ALIASED in attributes and function.returned[ir.IntegerAttr(attributes[ALIASED]).value] in placed:
            del attributes[ALIASED]
    function.finish()


PASS = Pass(
    name="peel-shifts",
    summary="compute the rows that shifts read from elsewhere apart",
    run=peel_shifts,
    options={"elements": int, "recompute": int},
)
