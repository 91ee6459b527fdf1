"""The dispatches of a group's kernels: their places in the function, and the readers of their results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sonew_compiled.passes.ir.attributes import ALIASED
from sonew_compiled.passes.ir.build import create
from sonew_compiled.passes.ir.function import Function
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.uses import at_top, owner
from sonew_compiled.passes.rows.kernel import Kernel
from sonew_compiled.passes.rows.layout import Layout
from sonew_compiled.passes.rows.reductions import FullReduction
from sonew_compiled.passes.rows.stream_executable import StreamExecutable


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A kernel that has a place in the function: after the operation `last`, or at the beginning."""

    layout: Layout
    last: ir.Operation | None


def dispatch(
    executable: StreamExecutable,
    function: Function,
    layouts: Sequence[Layout],
    *,
    after: ir.Operation | None = None,
    independent: bool = False,
) -> dict[ir.Operation, Kernel]:
    """Make the kernels of a group and their dispatches, and redirect the readers of their results.

    Nothing is made if a kernel has no place, unless the kernels are independent: then only that one is left out.

    Args:
      executable: receives the kernels.
      function: receives the dispatches.
      layouts: the layouts of the group's kernels, in order.
      independent: whether each can do without the others.
      after: a dispatch whose result the first of these takes, so as to run after it, if that is early enough.
    """
    placed = _places(function, layouts, after)
    while independent and len(placed) < len(layouts):
        layouts = [each.layout for each in placed]
        placed = _places(function, layouts, after)
    if len(placed) < len(layouts) or not layouts:
        return {}
    given: dict[ir.Value, ir.Value] = {}
    partial: dict[FullReduction, ir.Value] = {}
    made = {}
    for each in placed:
        parts = {reduction.result: result for reduction, result in partial.items()}
        kernel = Kernel(each.layout, executable)
        operands = [parts.get(value, given.get(value, value)) for value in each.layout.operands]
        with _after([each.last, *map(owner, operands)], function):
            op = _dispatch(executable, each.layout, operands)
        made[op] = kernel
        results = iter(op.results)
        given |= {value: next(results) for value in each.layout.phase.stored}
        partial |= zip(each.layout.reductions, results, strict=True)
    for reduction, result in partial.items():
        reduction.reduce_partial(result)
    for value, result in given.items():
        value.replace_all_uses_with(result)
    for op in reversed(layouts[0].phase.group.inside):
        if not list(op.results[0].uses):
            op.erase()
    return made


def overwrite_arguments(function: Function, dispatches: Mapping[ir.Operation, Kernel]) -> None:
    """Make kernels write results to donated arguments' memory, if nothing else reads it, nor the kernel another row.

    Other results of kernels lose their alias, since they would be written before the argument is read to its end.
    """
    # The hash of an operation is that of its operands too, which later dispatches have replaced.
    dispatches = {op: kernel for op, kernel in dispatches.items()}  # noqa: C416
    tied: dict[ir.Operation, dict[int, int]] = {op: {} for op in dispatches}
    for argument, attributes in zip(function.arguments, function.argument_attributes, strict=True):
        if ALIASED not in attributes:
            continue
        value = function.returned[ir.IntegerAttr(attributes[ALIASED]).value]
        op = owner(value)
        if op is None or op not in tied:
            continue
        readers = {use.owner.operation for use in argument.uses}
        if readers == {op} and argument in dispatches[op].layout.own:
            tied[op][list(op.results).index(value)] = list(op.operands).index(argument)
        else:
            del attributes[ALIASED]
    index = ir.IndexType.get()
    for op, kernel in dispatches.items():
        kernel.overwrite(tied[op])
        operands = [tied[op].get(number, -1) for number in range(len(op.results))]
        op.attributes["tied_operands"] = ir.ArrayAttr.get([ir.IntegerAttr.get(index, each) for each in operands])
    function.finish()


def _places(function: Function, layouts: Sequence[Layout], after: ir.Operation | None) -> list[_Placed]:
    """The places of the kernels that have one.

    A dispatch goes after the last of its operands. That must be before the first reader of its results.
    """
    places: dict[ir.Operation, float] = {op.operation: place for place, op in enumerate(function.block.operations)}
    first_reads = _first_reads(layouts, places)
    if layouts and after is not None and places[after] < min(first_reads):
        layouts = [replace(layouts[0], after=after.results[0]), *layouts[1:]]
    # The places of the results of earlier kernels.
    given: dict[ir.Value, float] = {}
    placed = []
    for layout, first_read in zip(layouts, first_reads, strict=True):
        operands = layout.operands
        makers = [op for value in operands if value not in given and (op := owner(value)) is not None]
        last = max(makers, key=places.__getitem__, default=None)
        place = max([places[last] if last is not None else -1, *(given.get(each, -1) for each in operands)])
        if first_read <= place:
            continue
        placed.append(_Placed(layout=layout, last=last))
        given |= dict.fromkeys([*layout.phase.stored, *(each.result for each in layout.reductions)], place)
    return placed


def _first_reads(layouts: Iterable[Layout], places: Mapping[ir.Operation, float]) -> list[float]:
    """For each kernel, the place of the first operation that reads its results and that no kernel replaces."""
    layouts = list(layouts)
    replaced = _replaced(layouts)
    return [min((places[op] for op in _readers(layout) - replaced), default=math.inf) for layout in layouts]


def _replaced(layouts: Sequence[Layout]) -> set[ir.Operation]:
    """The operations of the group that nothing reads any more when the kernels are there."""
    stored = {value for layout in layouts for value in layout.phase.stored}
    gone = {op for layout in layouts for reduction in layout.reductions for op in reduction.operations}
    reductions = set(gone)
    for op in reversed(layouts[0].phase.group.inside) if layouts else ():
        value = op.results[0]
        if value in stored or all(use.owner.operation in gone for use in value.uses):
            gone.add(op)
    return gone - reductions


def _readers(layout: Layout) -> set[ir.Operation]:
    """The operations at the top level that read the kernel's results, themselves or in a region."""
    return {at_top(use.owner.operation) for value in layout.phase.results for use in value.uses}


def _dispatch(executable: StreamExecutable, layout: Layout, operands: Sequence[ir.Value]) -> ir.Operation:
    attributes = {
        "entry_points": ir.ArrayAttr.get([executable.entry(layout.symbol)]),
        "operandSegmentSizes": ir.DenseI32ArrayAttr.get([0, len(operands), 0, 0]),
    }
    return create("flow.dispatch", operands, layout.results, attributes)


def _after(ops: Iterable[ir.Operation | None], function: Function) -> ir.InsertionPoint:
    """The point after the last of these operations, or the beginning of the function."""
    there = {op for op in ops if op is not None}
    last = None
    for op in function.block.operations:
        if op.operation in there:
            last = op.operation
    return ir.InsertionPoint.at_block_begin(function.block) if last is None else ir.InsertionPoint.after(last)
