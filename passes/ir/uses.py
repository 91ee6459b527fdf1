"""The operation that makes a value, and the operations that read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sonew_compiled.passes.ir.mlir import ir


def owner(value: ir.Value) -> ir.Operation | None:
    """The operation that makes a value; None for an argument."""
    return None if isinstance(value.owner, ir.Block) else value.owner.operation


def at_top(op: ir.Operation) -> ir.Operation:
    """The operation of the function's own block that is this one, or has it in a region."""
    while (parent := op.parent) is not None and parent.name != "func.func":
        op = parent
    return op


def operations_in(root: ir.Operation) -> list[ir.Operation]:
    """Every operation inside, within regions as well, in order."""
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op != root:
            found.append(op)
        return ir.WalkResult.ADVANCE

    root.walk(visit, ir.WalkOrder.PRE_ORDER)
    return found


def readers_beyond(op: ir.Operation, goes_on: Callable[[ir.Operation], bool]) -> Iterator[ir.Operation]:
    """Each operation once that reads this one's result, or that of a reader for which `goes_on` holds.

    This operation and those readers have one result each.
    """
    seen, waiting = {op}, [op]
    while waiting:
        for use in waiting.pop().results[0].uses:
            user = use.owner.operation
            if user not in seen:
                seen.add(user)
                if goes_on(user):
                    waiting.append(user)
                yield user


class Readers:
    """The operations that read a value now, as opposed to those that are made later."""

    def __init__(self, value: ir.Value) -> None:
        self._uses = [(use.owner.operation, use.operand_number) for use in value.uses]

    def redirect(self, value: ir.Value) -> None:
        """Make them read another value."""
        for operation, operand in self._uses:
            operation.operands[operand] = value
