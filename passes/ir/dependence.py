"""Data flow through calls: the results of a function that depend on some of its arguments."""

from __future__ import annotations

from collections.abc import Mapping

from sonew_compiled.passes.ir.calls import callee
from sonew_compiled.passes.ir.function import Function
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.uses import operations_in


def dependent_results(function: Function, arguments: frozenset[int], by_name: Mapping[str, Function]) -> frozenset[int]:
    """The indices of the results that are computed from any of the arguments with these indices.

    The search follows calls into their functions. An operation with regions, such as a loop, is taken as a whole: if it
    reads anything that depends on the arguments, all of its results depend on them.

    Args:
        function: a function of a flat module.
        arguments: the indices of its arguments.
        by_name: every function of the module.
    """
    found = {function.arguments[index] for index in arguments}
    for op in function.block.operations:
        operation = op.operation
        read = [index for index, value in enumerate(operation.operands) if value in found]
        if operation.name == "func.call":
            if read:
                inner = dependent_results(by_name[callee(operation)], frozenset(read), by_name)
                found.update(operation.results[index] for index in inner)
        elif read or _reads_inside(operation, found):
            found.update(operation.results)
    return frozenset(index for index, value in enumerate(function.returned) if value in found)


def _reads_inside(operation: ir.Operation, values: set[ir.Value]) -> bool:
    return any(operand in values for inner in operations_in(operation) for operand in inner.operands)
