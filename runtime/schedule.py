"""The schedules of the learning rate. The rate is an input of every step, so no schedule is compiled in."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sonew_compiled.errors import UsageError
from sonew_compiled.train_settings import SCHEDULES, default_warmup_epochs

_LARGEST = float(np.finfo(np.float32).max)


def learning_rates(
    schedule: str, *, peak: float, epochs: int, steps_per_epoch: int, warmup_epochs: int | None = None
) -> Callable[[int], float]:
    """The learning rate as a function of the step, counted from 0 at the start of training.

    With `E` epochs, `W` of warm-up and a peak `lr`:

    - `paper`: one rate for each epoch, `concat(linspace(0, lr, W), linspace(lr, 0, E - W + 2)[1:-1])`, as in the
      paper's benchmark. The rate of the whole first epoch is 0 if `W > 0`. A `W` of `E` or more counts as `E - 1`: the
      formula needs a smaller `W`, and with one epoch 0 would be the only rate.
    - `constant`: `lr` after a linear warm-up over the steps of `W` epochs.
    - `cosine`: the same warm-up, then half a cosine over the remaining steps, from `lr` to 0.

    Args:
      schedule: `paper`, `constant` or `cosine`.
      peak: the highest learning rate, 0 or more.
      epochs: of the whole run, 1 or more.
      steps_per_epoch: 1 or more.
      warmup_epochs: 0 or more; by default `default_warmup_epochs(epochs)`.

    Raises:
      UsageError: a value is out of range.
    """
    if schedule not in SCHEDULES:
        raise UsageError(f"there is no schedule {schedule!r}: choose --schedule from {', '.join(SCHEDULES)}")
    if not 0 <= peak <= _LARGEST:  # also false for NaN
        raise UsageError(f"learning rate {peak} is not a finite number of 0 or more: choose another --learning-rate")
    if epochs < 1:
        raise UsageError(f"{epochs} epochs are too few: choose --epochs of 1 or more")
    if warmup_epochs is not None and warmup_epochs < 0:
        raise UsageError(f"{warmup_epochs} epochs of warm-up are too few: choose --warmup-epochs of 0 or more")
    assert steps_per_epoch >= 1
    warmup = default_warmup_epochs(epochs) if warmup_epochs is None else warmup_epochs
    if schedule == "paper":
        return _paper(peak, epochs, steps_per_epoch, min(warmup, epochs - 1))
    return _by_step(peak, epochs * steps_per_epoch, warmup * steps_per_epoch, decays=schedule == "cosine")


def _paper(peak: float, epochs: int, steps_per_epoch: int, warmup: int) -> Callable[[int], float]:
    rates = np.concatenate([np.linspace(0, peak, warmup), np.linspace(peak, 0, epochs - warmup + 2)[1:-1]])
    assert len(rates) == epochs
    return lambda step: float(rates[step // steps_per_epoch])


def _by_step(peak: float, steps: int, warmup: int, *, decays: bool) -> Callable[[int], float]:
    def rate(step: int) -> float:
        if step < warmup:
            return peak * ((step + 1) / warmup)
        if not decays:
            return peak
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    return rate
