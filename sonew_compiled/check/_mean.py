"""Whether the loss of a step is the mean of the losses that evaluation gives its examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sonew_compiled.check._reference import Call
from sonew_compiled.contract import EVAL_STEP, LOSS, LOSSES, TRAIN_STEP

# Relative to the mean of the losses' magnitudes: sums in another order, and roundings to 16 bits.
_FLOAT32, _NARROW = 1e-3, 3e-2


def no_mean(calls: Sequence[Call], precision: str) -> tuple[float, float] | None:
    """The loss of a batch, and the mean of the losses of its examples alone; None where they agree.

    Args:
      calls: of `Reference.calls`, for a model whose evaluation calls the loss itself with one example at a time.
      precision: the policy.
    """
    step = next(call for call in calls if call.function == TRAIN_STEP)
    evaluated = next(call for call in calls if call.function == EVAL_STEP)
    losses = evaluated.again({name: step.inputs[name] for name in evaluated.inputs})[LOSSES].astype(np.float64)
    loss, mean = float(step.results[LOSS]), float(losses.mean())
    tolerance = (_FLOAT32 if precision == "f32" else _NARROW) * max(abs(loss), float(np.abs(losses).mean()))
    return (loss, mean) if abs(loss - mean) > tolerance else None
