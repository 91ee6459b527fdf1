"""Moving exports from one flat module to another."""

from __future__ import annotations

from collections.abc import Collection

from sonew_compiled.passes.ir.calls import reachable
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir


def link(module: ir.Module, other: ir.Module, exports: Collection[str]) -> None:
    """Move exports and the functions that they call from another flat module of the same context, which is consumed."""
    with module.context:
        here = {function.name for function in functions(module)}
        assert not here & set(exports), here
        taken = here | {function.name for function in functions(other)}
        wanted = reachable(other, exports)
        moved = [function for function in functions(other) if function.name in wanted]
        for function in moved:
            name = function.name
            if name in here:
                new = _free(name, taken)
                taken.add(new)
                ir.SymbolTable.set_symbol_name(function.op, new)
                ir.SymbolTable.replace_all_symbol_uses(name, new, other.operation)
        for function in moved:
            module.body.append(function.op)


def _free(name: str, taken: Collection[str]) -> str:
    number = 0
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"
