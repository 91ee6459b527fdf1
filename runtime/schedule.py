"""The schedules of the learning rate. The rate is an input of every step, so no schedule is compiled in."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sonew_compiled.train_settings import TrainSettings

Rate = Callable[[int], float]

# The rate at which `one-cycle` starts, and the last rates that ship, as parts of the peak.
_ONE_CYCLE_START = 1 / 25
_FINAL = {"cosine": 0.0, "linear": 0.0, "step": 1e-2, "exponential": 1e-3, "one-cycle": 0.0}


def learning_rates(
    schedule: str,
    *,
    peak: float,
    epochs: int,
    steps_per_epoch: int,
    warmup_steps: int | None = None,
    warmup_epochs: int | None = None,
    final_rate: float | None = None,
) -> Rate:
    """The learning rate as a function of the step, counted from 0 at the start of training.

    A run of `N` steps warms up for `W` of them: the rate of step `s < W` is `peak (s + 1) / W`. After that, with
    `t = (s - W) / (N - W)` and a rate `final` at the end:

    - `constant`: `peak`.
    - `cosine`: `final + (peak - final) (1 + cos(pi t)) / 2`.
    - `linear`: `peak + (final - peak) t`.
    - `step`: `peak` up to the half, `sqrt(peak final)` up to three quarters, then `final`.
    - `exponential`: `peak (final / peak)^t`.
    - `one-cycle`: the warm-up is half a cosine from `peak / 25`, and the rest is `cosine` (Smith and Topin 2018).
    - `paper`: one rate for each of `E` epochs, with `V` epochs of warm-up:
      `concat(linspace(0, peak, V), linspace(peak, 0, E - V + 2)[1:-1])`, as in the paper's benchmark. The rate of the
      whole first epoch is 0 if `V > 0`. A `V` of `E` or more counts as `E - 1`: the formula needs a smaller `V`, and
      with one epoch 0 would be the only rate.

    Args:
      schedule: one of `SCHEDULES`.
      peak: the highest learning rate, 0 or more.
      epochs: the epochs of the whole run, 1 or more.
      steps_per_epoch: the batches in an epoch, 1 or more.
      warmup_steps: `W`, 0 or more; by default `default_warmup_steps(schedule, steps)`. Not for `paper`.
      warmup_epochs: `V`, by default `default_warmup_epochs(epochs)`; for the other schedules `W` in epochs.
      final_rate: `final`, at most the peak; by default 0, for `step` a hundredth and for `exponential` a thousandth of
        the peak. Not for `constant` and `paper`.

    Raises:
      UsageError: a value is out of range, or does not go with another.
    """
    assert steps_per_epoch >= 1
    settings = TrainSettings(
        epochs=epochs,
        learning_rate=peak,
        schedule=schedule,
        warmup_steps=warmup_steps,
        warmup_epochs=warmup_epochs,
        final_rate=final_rate,
    )
    return rates_of(settings, steps_per_epoch)


def rates_of(settings: TrainSettings, steps_per_epoch: int) -> Rate:
    """`learning_rates` of a run's settings."""
    settings = settings.with_warmup(steps_per_epoch)
    peak, epochs, schedule = settings.learning_rate, settings.epochs, settings.schedule
    if schedule == "paper":
        assert settings.warmup_epochs is not None
        return _paper(peak, epochs, steps_per_epoch, min(settings.warmup_epochs, epochs - 1))
    steps = epochs * steps_per_epoch
    warmup = settings.warmup_steps
    if warmup is None:
        assert settings.warmup_epochs is not None
        warmup = settings.warmup_epochs * steps_per_epoch
    if schedule == "constant":
        return _after_warmup(peak, warmup, lambda step: peak)
    final = _FINAL[schedule] * peak if settings.final_rate is None else settings.final_rate

    def falling(step: int) -> float:
        done = min((step - warmup) / (steps - warmup), 1.0)
        return max(min(_falling(schedule, peak, final, done), peak), final)

    if schedule == "one-cycle":
        start = _ONE_CYCLE_START * peak
        return lambda step: _cosine(start, peak, step / warmup) if step < warmup else falling(step)
    return _after_warmup(peak, warmup, falling)


def _paper(peak: float, epochs: int, steps_per_epoch: int, warmup: int) -> Rate:
    rates = np.concatenate([np.linspace(0, peak, warmup), np.linspace(peak, 0, epochs - warmup + 2)[1:-1]])
    assert len(rates) == epochs
    return lambda step: float(rates[step // steps_per_epoch])


def _after_warmup(peak: float, warmup: int, rate: Rate) -> Rate:
    return lambda step: peak * ((step + 1) / warmup) if step < warmup else rate(step)


def _falling(schedule: str, peak: float, final: float, done: float) -> float:
    """The rate from `peak` to `final` when a part `done` of the steps after the warm-up is done."""
    if schedule == "linear":
        return peak + (final - peak) * done
    if schedule == "step":
        return peak if done < 0.5 else math.sqrt(peak) * math.sqrt(final) if done < 0.75 else final
    if schedule == "exponential":
        return peak * (final / peak) ** done if peak else 0.0
    return _cosine(peak, final, done)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))
