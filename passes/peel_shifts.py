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

from collections.abc import Collection

from sonew_compiled.passes import _build as build
from sonew_compiled.passes._function import Function, element_type, functions, owner, shape_of
from sonew_compiled.passes._inline import inline_calls
from sonew_compiled.passes._mlir import ir, run_mlir_passes
from sonew_compiled.passes._pass import Pass
from sonew_compiled.passes._row_parts import Pinched, interior, reach
from sonew_compiled.passes._rows import RowGroup, is_concatenation
from sonew_compiled.passes.wire_donation import ALIASED

ELEMENTS = 1 << 14
"""Tensors of fewer elements are left alone: what their shifts cost is less than another dispatch does."""

RECOMPUTE = 48
"""Operations that may be done again for the further shifts of a value."""


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
            placed |= _peel(group, recompute)
        _forget_aliases(function, placed)
    run_mlir_passes(module, "builtin.module(func.func(cse))")


def _give_each_reader_its_own_slice(function: Function) -> None:
    """So that what only a group reads is seen to be its own; equal ones are one again in the end."""
    for op in reversed([each.operation for each in function.block.operations]):
        if op.name in ("stablehlo.slice", "stablehlo.concatenate") and not is_concatenation(op, 0):
            for use in list(op.results[0].uses)[1:]:
                with ir.InsertionPoint(op):
                    use.owner.operation.operands[use.operand_number] = op.clone().results[0]


def _peel(group: RowGroup, recompute: int) -> set[ir.Value]:
    """Give every tensor of the group that something else reads in parts, and return what these are put together to."""
    written = group.written(recompute)
    edges = group.edges(written)
    if not written or sum(edges) * 4 > group.rows:
        return set()
    wholes: dict[ir.Value, ir.Value] = {}
    ordered = [op.results[0] for op in group.operations if op.results[0] in written]
    pinched = Pinched(group, max(edges) + max(reach(group, value, written) for value in ordered))
    for value in ordered:
        uses = [(use.owner.operation, use.operand_number) for use in value.uses]
        outside = [use for use in uses if use[0] not in group.inside]
        with ir.InsertionPoint.after(owner(value)):
            middle = interior(group, value, wholes, edges)
            few = pinched.of(value)
            size = shape_of(few)[0]
            parts = [(few, 0, edges[0]), (middle, 0, shape_of(middle)[0]), (few, size - edges[1], size)]
            parts = [part for part in parts if part[1] < part[2]]
            if any(not _reduces_rows(op) for op, _ in uses):
                whole = build.concatenate([build.rows(*part) for part in parts], 0)
                wholes[value] = whole
                pinched.put(value, whole)
                for operation, operand in outside:
                    if not _reduces_rows(operation):
                        operation.operands[operand] = whole
        for operation in dict.fromkeys(op for op, _ in outside if _reduces_rows(op)):
            _reduce_parts(operation, parts)
    for op in reversed(group.inside):
        if not list(op.results[0].uses):
            op.erase()
    return set(wholes.values())


def _forget_aliases(function: Function, placed: Collection[ir.Value]) -> None:
    """Let results that are put together from parts have memory of their own.

    IREE has each part write its place there, but does not see that it may when the memory is that of an argument: the
    whole is then copied to it in the end.
    """
    for attributes in function.argument_attributes:
        if ALIASED in attributes and function.returned[ir.IntegerAttr(attributes[ALIASED]).value] in placed:
            del attributes[ALIASED]
    function.finish()


def _reduces_rows(op: ir.Operation) -> bool:
    """Whether it reduces each row of a tensor to one number."""
    if op.name != "stablehlo.reduce" or len(op.results) != 1:
        return False
    return list(ir.DenseI64ArrayAttr(op.attributes["dimensions"])) == list(range(1, len(shape_of(op.operands[0]))))


def _reduce_parts(op: ir.Operation, parts: list[tuple[ir.Value, int, int]]) -> None:
    """Reduce the rows of each tensor that has some of them."""
    reduced: dict[ir.Value, ir.Value] = {}
    with ir.InsertionPoint(op):
        for tensor in dict.fromkeys(part[0] for part in parts):
            copy = op.clone()
            copy.operands[0] = tensor
            copy.results[0].set_type(ir.RankedTensorType.get(shape_of(tensor)[:1], element_type(op.results[0])))
            reduced[tensor] = copy.results[0]
        total = build.concatenate([build.rows(reduced[tensor], start, end) for tensor, start, end in parts], 0)
    op.results[0].replace_all_uses_with(total)
    op.erase()


PASS = Pass(
    name="peel-shifts",
    summary="compute the rows that shifts read from elsewhere apart",
    run=peel_shifts,
    options={"elements": int, "recompute": int},
)
