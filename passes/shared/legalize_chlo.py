"""Replace chlo operations by StableHLO ones, and composites by calls of their decompositions.

JAX lowers some functions (`square`, `erf_inv`, `top_k`, ...) to the chlo dialect. StableHLO promises no compatibility
for that dialect, so the portable artifact cannot hold it.
"""

from __future__ import annotations

from sonew_compiled.passes.ir.mlir import ir, run_mlir_passes
from sonew_compiled.passes.record import Pass


def legalize_chlo(module: ir.Module) -> None:
    """Decompose every chlo operation and every composite of the module's functions."""
    run_mlir_passes(
        module, "builtin.module(func.func(stablehlo-legalize-composite-to-call,chlo-legalize-to-stablehlo))"
    )


PASS = Pass(
    name="legalize-chlo",
    summary="replace chlo operations and composites by StableHLO ones",
    description=__doc__,
    run=legalize_chlo,
)
