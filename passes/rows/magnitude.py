"""Which tensors hold no number with a sign."""

from __future__ import annotations

import math

from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.uses import owner

# They give a magnitude if all of their operands are one.
_KEEPING = ("add", "broadcast_in_dim", "concatenate", "maximum", "slice")


def is_magnitude(value: ir.Value) -> bool:
    """Whether the tensor is computed of absolute values and constants without a sign, by sums and maxima alone."""
    # Each value is visited once: there may be far more ways to a value than values.
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
