"""Whether the loss of a step is the mean of the losses that evaluation gives its examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sonew_compiled.check._reference import Call
from sonew_compiled.contract import EVAL_STEP, LOSS, LOSSES, TRAIN_STEP
from sonew_compiled.runtime import Program

# Relative to the mean of the losses' magnitudes: sums in another order, and roundings to 16 bits.
_FLOAT32, _NARROW = 1e-3, 3e-2


def no_mean(program: Program, calls: Sequence[Call]) -> tuple[float, float] | None:
    """The loss of a batch, and the mean of the losses of its examples alone; None where they agree.

    Args:
      program: the loaded bundle, already checked, of a model whose evaluation calls the loss itself with one example
        at a time.
      calls: the calls from `Reference.calls`.
    """
    step = next(call for call in calls if call.function == TRAIN_STEP)
    function = program.manifest.functions[EVAL_STEP]
    given = {spec.name: program.upload(spec, step.inputs[spec.name]) for spec in function.inputs}
    results = program.call(EVAL_STEP, given)
    (spec,) = (spec for spec in function.outputs if spec.name == LOSSES)
    losses = program.download(spec, results[LOSSES]).astype(np.float64)
    loss, mean = float(step.results[LOSS]), float(losses.mean())
    tolerance = _FLOAT32 if program.manifest.precision == "f32" else _NARROW
    return (loss, mean) if abs(loss - mean) > tolerance * max(abs(loss), float(np.abs(losses).mean())) else None
