"""Functions put in the place of their calls: MLIR's own inliner does not know `func.call` in jaxlib's bindings."""

from __future__ import annotations

from collections.abc import Mapping

from sonew_compiled.passes._function import Function, callee, copied, functions
from sonew_compiled.passes._mlir import ir, run_mlir_passes


def inline_calls(module: ir.Module) -> None:
    """Inline every call at the top level of an export, and in what that brings there; then drop what nothing calls."""
    by_name = {function.name: function for function in functions(module)}
    for function in by_name.values():
        if function.is_public:
            while calls := [op.operation for op in function.block.operations if op.operation.name == "func.call"]:
                for call in calls:
                    _inline(call, by_name)
    run_mlir_passes(module, "builtin.module(symbol-dce)")


def _inline(call: ir.Operation, by_name: Mapping[str, Function]) -> None:
    function = by_name[callee(call)]
    with ir.InsertionPoint(call):
        values = copied(function.block, dict(zip(function.arguments, call.operands, strict=True)))
    for result, value in zip(call.results, values, strict=True):
        result.replace_all_uses_with(value)
    call.erase()
