"""`sonew bench --preset speed`: the compiled step against XLA and the memory, as one table."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sonew_compiled.bench._apart import call_apart
from sonew_compiled.bench._circumstances import Watch
from sonew_compiled.bench._speed_settings import OTHER_POLICIES
from sonew_compiled.bench._speed_settings import SpeedSettings as SpeedSettings
from sonew_compiled.bench.goals import Goal, described
from sonew_compiled.errors import SonewError
from sonew_compiled.lowering.units import count_units, is_product
from sonew_compiled.runtime import open_bundle

GOALS = (
    Goal(key="step_f32", what="whole step, tridiag, f32, IREE ÷ XLA", must=0.85, aim=0.75),
    Goal(key="step_bf16", what="whole step, tridiag, bf16, IREE ÷ XLA", must=0.45, aim=0.35),
    Goal(key="step_bf16_over_f32", what="whole step, tridiag, bf16 ÷ f32, both IREE", must=0.62, aim=0.5),
    *(
        Goal(
            key=f"step_{each}_over_f32",
            what=f"whole step, tridiag, {each} ÷ f32, both IREE",
            must=0.66,
            aim=0.55,
        )
        for each in OTHER_POLICIES
    ),
    Goal(key="step_over_adam", what="whole step, f32, tridiag ÷ Adam, both IREE", must=1.05, aim=1.03),
    Goal(key="shampoo_step_over_adam", what="whole step, f32, Shampoo every 20 steps ÷ Adam, both IREE"),
    Goal(key="update_f32", what="update alone, tridiag, f32, IREE ÷ XLA", must=0.5, aim=0.35),
    Goal(
        key="update_bandwidth_share",
        what="update alone, tridiag, bytes it must touch ÷ (time · measured copy bandwidth)",
        must=0.6,
        aim=0.85,
        at_least=True,
    ),
    Goal(key="update_bf16_over_f32", what="update alone, bf16 state ÷ f32 state, time", must=0.75, aim=0.6),
    Goal(key="band4_over_tridiag", what="update alone, band-4 ÷ tridiag, time", must=3.0, aim=2.0),
    Goal(key="tridiag_over_adam", what="tridiag's update ÷ Adam's update, both IREE", must=2.1, aim=1.6),
    Goal(key="loop_overhead", what="runtime loop's overhead over the bare compiled step", must=0.02, aim=0.005),
    Goal(key="loop_overhead_bf16", what="the same overhead under bf16", must=0.02, aim=0.005),
    Goal(
        key="growth",
        what="growth of the update's time from 1 M to 100 M parameters, per parameter",
        must=1.35,
        aim=1.1,
    ),
    Goal(key="compile_seconds", what="compile time of the f32 step for one target", must=15.0, aim=6.0, unit=" s"),
    Goal(key="compile_seconds_bf16", what="the same compile time under bf16", must=15.0, aim=6.0, unit=" s"),
    Goal(key="start_seconds", what="start of `sonew run BUNDLE` to first step", must=0.8, aim=0.4, unit=" s"),
)
"""The lines of the table, with bounds for a processor that has units for products of bfloat16."""

# Without such units the products under bf16 are those of float32, and XLA's too.
_WITHOUT_UNITS = {"step_bf16": (1.0, 0.85), "step_bf16_over_f32": (1.1, 1.0)}


def goals_of(result: Mapping[str, Any]) -> tuple[Goal, ...]:
    """The lines of the table with the bounds for the processor of a result."""
    if result["units"]:
        return GOALS
    without = _WITHOUT_UNITS | {f"step_{each}_over_f32": (None, None) for each in OTHER_POLICIES}
    bounds = {goal.key: without.get(goal.key, (goal.must, goal.aim)) for goal in GOALS}
    return tuple(replace(goal, must=bounds[goal.key][0], aim=bounds[goal.key][1]) for goal in GOALS)


def measure_speed(
    settings: SpeedSettings, *, host: str | None = None, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measures the whole table.

    Args:
      settings: those of the measurements.
      host: the name of this machine in the result; None to leave it out.
      say: is called with each line of progress.

    Returns:
      The result, see `goals.described`; and `units`, the instructions that multiply
      16-bit numbers in the code under bf16.

    Raises:
      RunError: a measurement failed.
    """
    asked, watch = asdict(settings), Watch(host)
    measurements: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="sonew-") as folder:
        say("compile the steps")

        def compiled(*names: str) -> dict[str, float]:
            task = "sonew_compiled.bench._speed_tasks:compile_bundles"
            return call_apart(task, settings=asked, folder=folder, names=names)

        compiles = {name: [compiled(name)[name] for _ in range(settings.compiles)] for name in ("f32", "bf16")}
        compiled(*OTHER_POLICIES, "adam", "shampoo")
        bundle = open_bundle(Path(folder, "bf16"))
        units = sorted(filter(is_product, count_units(bundle.read(bundle.manifest.targets[0].file))))
        for precision in ("f32", "bf16"):
            say(f"time the whole step in {precision} against XLA's")
            measurements |= call_apart(
                "sonew_compiled.bench._speed_tasks:measure_step", settings=asked, folder=folder, precision=precision
            )
        say("time the whole step under other policies")
        measurements |= call_apart("sonew_compiled.bench._speed_tasks:measure_policies", settings=asked, folder=folder)
        say("time the whole step against Adam's")
        measurements |= call_apart(
            "sonew_compiled.bench._speed_tasks:measure_optimizers", settings=asked, folder=folder
        )
        say("time the update alone")
        measurements |= call_apart("sonew_compiled.bench._speed_tasks:measure_updates", settings=asked)
        say("time the update of {:,} and {:,} parameters".format(*(side * side for side in settings.growth_sides)))
        measurements |= call_apart("sonew_compiled.bench._speed_tasks:measure_growth", settings=asked)
        for precision in ("f32", "bf16"):
            say(f"time the runtime's loop in {precision}")
            measurements |= call_apart(
                "sonew_compiled.bench._speed_tasks:measure_loop", settings=asked, folder=folder, precision=precision
            )
        say("time the start of `sonew run`")
        starts = [_start_seconds(Path(folder, "f32"), settings.data) for _ in range(settings.starts)]
    seconds = {
        "compile_seconds": compiles["f32"],
        "compile_seconds_bf16": compiles["bf16"],
        "start_seconds": starts,
    }
    ratios = {key: value["ratio"] for key, value in measurements.items()}
    ratios |= {key: statistics.median(each) for key, each in seconds.items()}
    measurements |= {key: {"each": each} for key, each in seconds.items()}
    return described(GOALS, ratios, measurements, settings, watch) | {"units": units}


def _start_seconds(bundle: Path, data: str) -> float:
    """The seconds from the start of a process to the end of its first training step, where the process ends."""
    with tempfile.TemporaryDirectory(prefix="sonew-") as scratch:
        stamp = Path(scratch, "stamp")
        command = [sys.executable, "-m", "sonew_compiled.bench._start", str(stamp)]
        command += ["run", str(bundle), "--data", data, "--max-steps", "1", "--output", str(Path(scratch, "run"))]
        started = time.time()
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if not stamp.exists():
            said = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise SonewError(f"`sonew run {bundle.name}` did not reach its first step: {said}")
        return float(stamp.read_text(encoding="utf-8")) - started
