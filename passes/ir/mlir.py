"""jaxlib's bindings of MLIR, which only this file imports, and the functions that every pass needs of them."""

from __future__ import annotations

from jaxlib.mlir import ir, passmanager
from jaxlib.mlir._mlir_libs import _jax_mlir_ext
from jaxlib.mlir.dialects import chlo, func, sdy, stablehlo

from sonew_compiled.errors import UsageError

__all__ = ["chlo", "func", "ir", "make_context", "parse", "run_mlir_passes", "stablehlo", "to_text"]

stablehlo.register_stablehlo_passes()


def make_context() -> ir.Context:
    """Return a context that knows the dialects of a JAX lowering: builtin, func, stablehlo, chlo and sdy.

    Attributes of dialects that are not registered (`sonew.name`, `tf.aliasing_output`) are allowed on registered
    operations; operations of unknown dialects are not.
    """
    context = ir.Context()
    registry = ir.DialectRegistry()
    _jax_mlir_ext.register_dialects(registry)
    context.append_dialect_registry(registry)
    context.load_all_available_dialects()
    stablehlo.register_dialect(context)
    chlo.register_dialect(context)
    sdy.register_dialect(context)
    return context


def parse(text: str, context: ir.Context | None = None) -> ir.Module:
    """Parse and verify a module's text.

    Raises:
        UsageError: the text is not valid MLIR; the message holds MLIR's first complaint.
    """
    with context or make_context():
        try:
            return ir.Module.parse(text)
        except ir.MLIRError as error:
            raise UsageError(f"the module is not valid MLIR: {first_diagnostic(error)}") from error


def to_text(module: ir.Module, *, locations: bool = False, generic: bool = False) -> str:
    """Return the module's text with every constant in full, and on request with locations or in the generic form."""
    text = module.operation.get_asm(enable_debug_info=locations, print_generic_op_form=generic)
    return str(text).rstrip("\n") + "\n"


def run_mlir_passes(module: ir.Module, pipeline: str) -> None:
    """Run MLIR's own passes, written as in `builtin.module(strip-debuginfo)`, on the module in place."""
    with module.context:
        passmanager.PassManager.parse(pipeline).run(module.operation)


def first_diagnostic(error: ir.MLIRError) -> str:
    """Return the first diagnostic of an MLIR error as `line:column: message`, at most 300 characters."""
    for diagnostic in error.error_diagnostics:
        place = str(diagnostic.location).removeprefix("loc(").removesuffix(")").removeprefix('"-":')
        return f"{place}: {diagnostic.message}"[:300]
    return str(error)[:300]
