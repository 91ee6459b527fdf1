"""Ratios with bounds, their result and its table, which the presets `speed` and `workers` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sonew_compiled.bench._circumstances import Watch
from sonew_compiled.bench._machine import machine, versions
from sonew_compiled.bench._shares import COPY_READS_MORE
from sonew_compiled.bench._speed_settings import SpeedSettings
from sonew_compiled.runtime import DEFAULT_DEVICE


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A line of the table: a key of `ratios`, its meaning, and its bounds, if it has any."""

    key: str
    what: str
    must: float | None = None
    aim: float | None = None
    at_least: bool = False
    unit: str = ""

    def is_met(self, value: float) -> bool | None:
        """Whether a measured value is within the bound `must`; None if there is no bound."""
        if self.must is None:
            return None
        return value >= self.must if self.at_least else value <= self.must


def described(
    goals: Sequence[Goal],
    ratios: Mapping[str, float],
    measurements: Mapping[str, Any],
    settings: SpeedSettings,
    watch: Watch,
) -> dict[str, Any]:
    """The result of a preset.

    Returns:
      `ratios`, a number for the key of every goal; `measurements`, the seconds and the ratio of every pair behind it;
      `machine`, `versions`, `settings`, and what a row has from `date` to `warnings`.
    """
    return {
        "ratios": {goal.key: ratios[goal.key] for goal in goals},
        "measurements": dict(measurements),
        "machine": machine(DEFAULT_DEVICE),
        "versions": versions(),
        "settings": asdict(settings),
        **watch.described(),
    }


def markdown(result: dict[str, Any], goals: Sequence[Goal]) -> str:
    """The table of a result."""
    lines = ["| what | measured | must | aim | met |", "|---|---|---|---|---|"]
    for goal in goals:
        value = result["ratios"][goal.key]
        sign = "≥" if goal.at_least else "≤"
        bounds = " | ".join("" if b is None else f"{sign} {b:g}{goal.unit}" for b in (goal.must, goal.aim))
        met = {True: "yes", False: "no", None: ""}[goal.is_met(value)]
        lines.append(f"| {goal.what} | {value:.3g}{goal.unit} | {bounds} | {met} |")
    apart = [ns for each in result["measurements"].values() for ns in each.get("core_round_trip_ns", ()) if ns]
    if apart:
        lines += ["", f"The first two processors answered each other in {min(apart)} to {max(apart)} ns."]
    if result["ratios"].get("update_bandwidth_share", 0.0) > 1:
        lines += ["", f"The update's share is above 1: {COPY_READS_MORE}."]
    lines += [f"\nThe machine was not quiet: {warning}." for warning in result.get("warnings", ())]
    return "\n".join(lines) + "\n"
