"""Branches whose results have nothing to do with each other, taken apart."""

from __future__ import annotations

from sonew_compiled.passes.ir.function import Function
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.slices import copy_operations, slice_to

_BRANCHES = ("stablehlo.case", "stablehlo.if")


def divide_branches(function: Function) -> None:
    """Make several of each `case` and `if` at the top level, each of the results that are computed together."""
    for op in [each.operation for each in function.block.operations]:
        if op.name in _BRANCHES and len(op.results) > 1:
            _divide(op)


def _divide(op: ir.Operation) -> None:
    blocks = [region.blocks[0] for region in op.regions]
    slices = [[_computing(value, block) for value in _returned(block)] for block in blocks]
    together = _together(len(op.results), slices)
    if len(together) == 1:
        return
    for results in together:
        with ir.InsertionPoint(op):
            kinds = [op.results[index].type for index in results]
            attributes = {each.name: each.attr for each in op.attributes}
            made = ir.Operation.create(
                op.name, results=kinds, operands=list(op.operands), attributes=attributes, regions=len(blocks)
            )
        for region, block, computed in zip(made.regions, blocks, slices, strict=True):
            with ir.InsertionPoint(region.blocks.append()):
                known: dict[ir.Value, ir.Value] = {}
                copy_operations(block, set().union(*(computed[index] for index in results)), known)
                values = [_returned(block)[index] for index in results]
                ir.Operation.create("stablehlo.return", operands=[known.get(value, value) for value in values])
        for index, result in zip(results, made.results, strict=True):
            op.results[index].replace_all_uses_with(result)
    op.erase()


def _returned(block: ir.Block) -> list[ir.Value]:
    *_, last = block.operations
    return list(last.operation.operands)


def _computing(value: ir.Value, block: ir.Block) -> set[ir.Operation]:
    """The operations of a block that compute a value."""
    return slice_to([value], stop=()).operations & {each.operation for each in block.operations}


def _together(count: int, slices: list[list[set[ir.Operation]]]) -> list[list[int]]:
    """The results by the operations that they share in any branch; constants are no reason to keep them together."""
    group = list(range(count))
    for computed in slices:
        first: dict[ir.Operation, int] = {}
        for index, operations in enumerate(computed):
            for op in operations:
                if op.name != "stablehlo.constant":
                    joined, left = group[first.setdefault(op, index)], group[index]
                    group = [joined if number == left else number for number in group]
    return [[index for index in range(count) if group[index] == number] for number in sorted(set(group))]
