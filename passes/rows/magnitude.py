"""Magnitudes: tensors whose numbers all have a positive sign."""

from __future__ import annotations

import math

from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.uses import owner

# Operations that give a magnitude if all of their operands are magnitudes.
_KEEPING = ("add", "broadcast_in_dim", "concatenate", "maximum", "slice")


def is_magnitude(value: ir.Value) -> bool:
    """Whether only sums and maxima compute the tensor from absolute values and constants without a sign."""
    # Each value is visited once, since there may be far more paths than values.
    seen, waiting = {value}, [value]
    while waiting:
        value = waiting.pop()
        op = owner(value)
        if op is None:
            return False
        if op.name == "stablehlo.abs":
            continue
        if op.name.removeprefix("stablehlo.") in _KEEPING:
            waiting += set(op.operands) - seen
            seen.update(op.operands)
            continue
        constant = splat_of(value)
        if constant is None or math.copysign(1, ir.FloatAttr(constant).value) < 0:
            return False
    return True
