"""Keep some exported functions, and remove the others with what they alone call.

A bundle for inference is compiled from the module of a bundle that trains.
"""

from __future__ import annotations

from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir, run_mlir_passes
from sonew_compiled.passes.record import Option, Pass


def keep_exports(module: ir.Module, *, names: tuple[str, ...]) -> None:
    """Make all public functions but `names` private, and remove the functions that nothing calls.

    Raises:
        UsageError: there is no public function of such a name.
    """
    exports = {function.name: function.op for function in functions(module) if function.is_public}
    for name in names:
        if name not in exports:
            raise UsageError(f"keep-exports: no export {name!r}; the exports are: {', '.join(exports) or 'none'}")
    for name, op in exports.items():
        if name not in names:
            op.attributes["sym_visibility"] = ir.StringAttr.get("private")
    run_mlir_passes(module, "builtin.module(symbol-dce)")


def _read_names(text: str) -> tuple[str, ...]:
    """Names from text such as `eval_step+predict`."""
    return tuple(text.split("+"))


PASS = Pass(
    name="keep-exports",
    summary="keep some exported functions",
    description=__doc__,
    run=keep_exports,
    options=(
        Option(
            name="names",
            default=("eval_step",),
            help="the exports that are kept",
            read=_read_names,
        ),
    ),
)
