"""Calls: their functions, the functions that they reach, and inlining. jaxlib's bindings lack MLIR's own inliner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sonew_compiled.passes.ir.function import Function, copied, functions
from sonew_compiled.passes.ir.mlir import ir, run_mlir_passes
from sonew_compiled.passes.ir.uses import operations_in


def inline_calls(module: ir.Module, *, but: str = "") -> None:
    """Inline every call at the top level of the exports, including those that inlining brings there.

    Functions that nothing calls are then removed. Calls of the function `but` stay.
    """
    by_name = {function.name: function for function in functions(module)}
    for function in by_name.values():
        if function.is_public:
            inline_into(function, by_name, but=but)
    run_mlir_passes(module, "builtin.module(symbol-dce)")


def inline_into(function: Function, by_name: Mapping[str, Function], *, but: str = "") -> None:
    """Inline every call at the top level of one function, likewise."""
    while found := [op for op in _calls_at_top(function) if callee(op) != but]:
        for call in found:
            _inline(call, by_name)


def inline_all_calls(module: ir.Module) -> None:
    """Inline every call in the exports, including those in regions, and remove functions that nothing calls."""
    by_name = {function.name: function for function in functions(module)}
    for function in by_name.values():
        if function.is_public:
            while found := calls(function):
                for call in found:
                    _inline(call, by_name)
    run_mlir_passes(module, "builtin.module(symbol-dce)")


def _calls_at_top(function: Function) -> list[ir.Operation]:
    return [op.operation for op in function.block.operations if op.operation.name == "func.call"]


def _inline(call: ir.Operation, by_name: Mapping[str, Function]) -> None:
    function = by_name[callee(call)]
    with ir.InsertionPoint(call):
        values = copied(function.block, dict(zip(function.arguments, call.operands, strict=True)))
    for result, value in zip(call.results, values, strict=True):
        result.replace_all_uses_with(value)
    call.erase()


def callee(call: ir.Operation) -> str:
    """The name of the function that a `func.call` calls."""
    return str(ir.FlatSymbolRefAttr(call.attributes["callee"]).value)


def calls(function: Function) -> list[ir.Operation]:
    """Every call in the function's body, including those in regions."""
    return [op for op in operations_in(function.op) if op.name == "func.call"]


def reachable(module: ir.Module, roots: Iterable[str]) -> set[str]:
    """The functions of these names and all that they call, directly or not."""
    by_name = {function.name: function for function in functions(module)}
    seen: set[str] = set()
    pending = [name for name in roots if name in by_name]
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += [callee(call) for call in calls(by_name[name])]
    return seen
