"""The computation of some of a function's values, and copies of it in other functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.uses import operations_in, owner


class Slice:
    """The computation of some values.

    Attributes:
        operations: operations at the top level of a function.
        leaves: the values from which they start.
    """

    def __init__(self) -> None:
        self.operations: set[ir.Operation] = set()
        self.leaves: set[ir.Value] = set()


def slice_to(values: Iterable[ir.Value], *, stop: Collection[ir.Value]) -> Slice:
    """Follow values back to the function's arguments, and not beyond those in `stop`."""
    found, pending = Slice(), list(values)
    while pending:
        value = pending.pop()
        maker = owner(value)
        if maker is None or value in stop:
            found.leaves.add(value)
        elif maker not in found.operations:
            found.operations.add(maker)
            pending += read_by(maker)
    return found


def read_by(op: ir.Operation) -> list[ir.Value]:
    """The values that an operation reads, and those from outside that its regions read."""
    inner = operations_in(op)
    made = {result for each in inner for result in each.results}
    blocks = [block for each in (op, *inner) for region in each.regions for block in region.blocks]
    made |= {argument for block in blocks for argument in block.arguments}
    return [value for each in (op, *inner) for value in each.operands if value not in made]


def copy_operations(block: ir.Block, operations: Collection[ir.Operation], known: dict[ir.Value, ir.Value]) -> None:
    """Copy operations of a block to the insertion point, in their order, and add their results to `known`.

    The copies read the values that `known` has in place of the block's.
    """
    for op in [each.operation for each in block.operations]:
        if op in operations:
            copy = op.clone()
            for each in (copy, *operations_in(copy)):
                for index, operand in enumerate(each.operands):
                    each.operands[index] = known.get(operand, operand)
            # A value that is known already, such as an argument in its place, stays.
            known |= {old: new for old, new in zip(op.results, copy.results, strict=True) if old not in known}
