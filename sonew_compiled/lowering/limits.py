"""The limits of targets, found by trying; a module beyond them is refused before minutes of compiling."""

from __future__ import annotations

from collections.abc import Iterator

from jaxlib.mlir import ir

from sonew_compiled.lowering.targets import Target

# IREE turns 64-bit floats into 32-bit ones everywhere, so that the executable's arguments would contradict the
# manifest.
_NOWHERE = frozenset({"f64"})

# JAX's calls into Python have this in their names.
_CALLBACK = "python"

# The names of dtypes in NumPy and JAX.
_DTYPES = {"bf16": "bfloat16", "f16": "float16", "f64": "float64"}


def why_not_computed(module: ir.Module, target: Target) -> str:
    """The reason why the target cannot compute the module, in a few words; empty if none is known."""
    lacking = _NOWHERE.union(target.lacks)
    for operation in _operations(module):
        if operation.name == "stablehlo.custom_call":
            callee = ir.StringAttr(operation.attributes["call_target_name"]).value
            if _CALLBACK in callee:
                return (
                    "it cannot call back into Python; leave out jax.debug.print, jax.pure_callback and jax.io_callback"
                )
            return (
                f"it has no {callee}, which only XLA can call; write it with products and loops, or with "
                "QR, Cholesky, LU, eigh, SVD, FFTs and functions of them"
            )
        if operation.name == "stablehlo.rng":
            return "it has no jax.lax.rng_uniform, whose numbers nothing defines; draw them with jax.random"
        if operation.name == "stablehlo.convolution":
            element = _element_type(operation.operands[0].type)
            if element in target.lacks_in_convolutions:
                return f"it cannot convolve {_DTYPES.get(element, element)}"
        for value in (*operation.operands, *operation.results):
            element = _element_type(value.type)
            if element in lacking:
                return f"it cannot compute in {_DTYPES.get(element, element)}"
    return ""


def _operations(module: ir.Module) -> Iterator[ir.Operation]:
    found: list[ir.Operation] = []

    def visit(operation: ir.Operation) -> ir.WalkResult:
        found.append(operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    yield from found


def _element_type(value: ir.Type) -> str:
    return str(ir.ShapedType(value).element_type) if isinstance(value, ir.ShapedType) else str(value)
