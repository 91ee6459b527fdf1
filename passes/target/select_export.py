"""Keep one exported function, as the `@main` of a module of its own.

XLA compiles a module to an executable with one entry. The attributes of arguments and results are removed: the module
that calls `@main` says which arguments are donated.
"""

from __future__ import annotations

from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir, run_mlir_passes
from sonew_compiled.passes.record import Option, Pass

_MAIN = "main"


def select_export(module: ir.Module, *, name: str) -> None:
    """Make the public function `name` the module's only one, `@main`, and remove the functions that it does not call.

    Raises:
        UsageError: there is no such public function, or another function is called `@main`.
    """
    found = functions(module)
    exports = {function.name: function.op for function in found if function.is_public}
    if name not in exports:
        raise UsageError(f"select-export: no export {name!r}; the exports are: {', '.join(exports) or 'none'}")
    if name != _MAIN and _MAIN in {function.name for function in found}:
        raise UsageError(f"select-export: @{name} is to be called @{_MAIN}, but another function is")
    for export, op in exports.items():
        op.attributes["sym_visibility"] = ir.StringAttr.get("public" if export == name else "private")
    chosen = exports[name]
    for key in ("arg_attrs", "res_attrs"):
        if key in chosen.attributes:
            del chosen.attributes[key]
    ir.SymbolTable.replace_all_symbol_uses(name, _MAIN, module.operation)
    ir.SymbolTable.set_symbol_name(chosen, _MAIN)
    run_mlir_passes(module, "builtin.module(symbol-dce)")


PASS = Pass(
    name="select-export",
    summary="keep one exported function, as @main",
    description=__doc__,
    run=select_export,
    options=(
        Option(
            name="name",
            default="main",
            help="the export that is kept",
            read=str,
        ),
    ),
)
