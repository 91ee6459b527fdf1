"""Remove source locations.

Without them, the same model gives the same bytes wherever its source lies, and a bundle reveals nothing of the machine
that made it.
"""

from __future__ import annotations

from sonew_compiled.passes.ir.mlir import ir, run_mlir_passes
from sonew_compiled.passes.record import Pass


def strip_locations(module: ir.Module) -> None:
    """Make every location in the module unknown."""
    run_mlir_passes(module, "builtin.module(strip-debuginfo)")


PASS = Pass(
    name="strip-locations",
    summary="remove source locations",
    description=__doc__,
    run=strip_locations,
)
