"""`sonew bench --preset workers`: what micro-batches cost, and what a second worker brings, as one table."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sonew_compiled.bench._apart import RunError, call_apart
from sonew_compiled.bench._circumstances import Watch
from sonew_compiled.bench._speed_settings import SpeedSettings
from sonew_compiled.bench.goals import Goal, described
from sonew_compiled.errors import UsageError
from sonew_compiled.runtime.launcher import launched

GOALS = (
    Goal(key="split_over_fused", what="gradients and update ÷ train_step, CPU time", must=1.03, aim=1.0),
    Goal(key="bucket_over_fused", what="the same with a sum of two buckets on the host, CPU time", must=1.05, aim=1.0),
    Goal(key="allreduce_over_copy", what="the sum over two workers ÷ a copy of the bucket, time", must=6.0, aim=3.0),
    Goal(
        key="cpu_speedup_2",
        what="train_step ÷ a step of two workers, CPU time of the slower worker, a core each",
        must=1.6,
        aim=1.8,
        at_least=True,
    ),
    Goal(key="shard_state_2", what="the state of a worker with --shard-state of two ÷ the state", must=0.65, aim=0.63),
)

_LIMIT = 600.0


def measure_workers(
    settings: SpeedSettings, *, host: str | None = None, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measures the whole table, with tridiagonal SONew in float32; arguments and result are those of `measure_speed`.

    Raises:
      UsageError: the batch has no halves.
      RunError: a measurement failed.
      SonewError: there is no `mpirun`.
    """
    if settings.batch_size % 2:
        raise UsageError(f"--batch-size is {settings.batch_size}, which two workers cannot share: give an even number")
    asked, watch = asdict(settings), Watch(host)
    with tempfile.TemporaryDirectory(prefix="sonew-") as folder:
        job, environment = launched(2, ["-m", "sonew_compiled.bench._workers_job", folder, str(settings.pairs)])
        say("compile the steps")
        call_apart("sonew_compiled.bench._workers_tasks:compile_parts", settings=asked, folder=folder)
        say("time the halves of a step against the whole")
        measurements = call_apart("sonew_compiled.bench._workers_tasks:measure_split", settings=asked, folder=folder)
        say("time two workers against one")
        ended = subprocess.run(job, env=environment, capture_output=True, text=True, timeout=_LIMIT, check=False)
        answer = Path(folder, "job.json")
        if ended.returncode or not answer.exists():
            said = next((line for line in ended.stderr.splitlines() if line.startswith("sonew")), "no reason given")
            raise RunError(f"two workers ended with exit code {ended.returncode}: {said}")
        measurements |= json.loads(answer.read_text(encoding="utf-8"))
    ratios = {key: value["ratio"] for key, value in measurements.items()}
    return described(GOALS, ratios, measurements, settings, watch)
