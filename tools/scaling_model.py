"""Models the time of a step for 1 to 4096 workers, for the table of docs/internals/scaling.md.

A step of W workers on a batch of fixed size takes

    gradients(examples / W) + exchange(W) + update

- The gradients of b examples take a fixed time, in which the weights are read, and a time for each example.
- A ring sends a bucket of n bytes in 2 (W - 1) messages of n / W bytes, as the runtime's exchange of slices does in
  other steps. A tree sends it whole in 2 log2 W messages. Each message takes a latency, and its bytes the time of the
  network. What a worker receives in the first half is added.
- With overlap, which the runtime lacks, the exchange runs behind the backward pass, two thirds of the gradients.
- With accumulation, eight times as many examples make a batch, and the time given is an eighth of its step's.

The times of the step and of the update are measured, and stand in docs/results/speed.json. So is that of a copy of the
bucket. The networks' latencies are assumed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
SPEED = ROOT / "docs/results/speed.json"

PARAMETERS = 2_837_314
"""The parameters of the autoencoder, which `speed.json` measures."""
COPY_SECONDS = 0.73e-3
"""The time of a copy of its bucket, a third of the 2.2 ms in which two workers of one machine add theirs."""
EXAMPLES = 65_536
"""The examples in a batch: 16 for each of 4096 workers."""
ACCUMULATED = 8
WORKERS = (1, 16, 256, 4096)
NETWORKS = {10: 20e-6, 100: 5e-6, 400: 2e-6}
"""The assumed latency of a message in seconds, by gigabits a second."""
GAIN = 1.5
"""A step scales as long as twice the workers make it faster by at least this factor."""


class Costs(NamedTuple):
    """The costs of one worker, in seconds and bytes.

    Attributes:
      call: the time of a call of `gradients` for any number of examples.
      example: the time of each example.
      update: the time of the update.
      bucket: the bytes of the bucket.
      adding: the time of adding one byte of a bucket to another.
    """

    call: float
    example: float
    update: float
    bucket: int
    adding: float

    def gradients(self, workers: int) -> float:
        """The time of a worker's share of the gradients."""
        return self.call + self.example * EXAMPLES / workers

    def exchange(self, workers: int, gigabits: int, *, ring: bool) -> float:
        """The time in which all workers get the sum of the buckets."""
        messages = 2 * (workers - 1) if ring else 2 * math.ceil(math.log2(workers))
        size = self.bucket / workers if ring else self.bucket
        sent = messages * (NETWORKS[gigabits] + size * 8 / (gigabits * 1e9))
        return sent + messages / 2 * size * self.adding

    def step(
        self, workers: int, gigabits: int, *, ring: bool = True, overlap: bool = False, accumulated: int = 1
    ) -> float:
        """The time of a step, for each batch of those that are accumulated."""
        gradients = self.gradients(workers)
        exchange = self.exchange(workers, gigabits, ring=ring)
        if overlap:
            exchange = max(0.0, exchange - gradients * 2 / 3)
        return gradients + (exchange + self.update) / accumulated


WAYS: dict[str, dict[str, Any]] = {
    "ring": {},
    "tree": {"ring": False},
    "ring, overlap": {"overlap": True},
    f"ring, {ACCUMULATED} accumulated": {"accumulated": ACCUMULATED},
    "ring, both": {"overlap": True, "accumulated": ACCUMULATED},
}


def measured() -> Costs:
    """The costs on the machine of `docs/results/speed.json`."""
    found = json.loads(SPEED.read_text(encoding="utf-8"))
    step, update = (found["measurements"][key]["a_seconds"] for key in ("step_f32", "update_f32"))
    bucket = 4 * (1 + PARAMETERS)
    # The weights are read in the forward pass, and twice in the backward pass.
    call = 3 * COPY_SECONDS
    example = (step - update - call) / found["settings"]["batch_size"]
    return Costs(call=call, example=example, update=update, bucket=bucket, adding=COPY_SECONDS / bucket)


def limit(costs: Costs, gigabits: int, way: str) -> int:
    """The workers from which on twice as many make a step faster by less than `GAIN`."""
    workers = 1
    while workers < WORKERS[-1]:
        now, then = (costs.step(count, gigabits, **WAYS[way]) for count in (workers, 2 * workers))
        if now < GAIN * then:
            break
        workers *= 2
    return workers


def table(costs: Costs) -> str:
    """The times in milliseconds, a table for each network, with the limits in the last row."""
    lines = []
    for gigabits, latency in NETWORKS.items():
        lines += ["", f"{gigabits} Gb/s, {latency * 1e6:.0f} µs a message:", ""]
        lines += [f"| workers | {' | '.join(WAYS)} |", "|---" * (len(WAYS) + 1) + "|"]
        for workers in WORKERS:
            times = [1e3 * costs.step(workers, gigabits, **way) for way in WAYS.values()]
            lines.append(f"| {workers} | {' | '.join(f'{time:,.1f}' for time in times)} |")
        lines.append(f"| scales to | {' | '.join(str(limit(costs, gigabits, way)) for way in WAYS)} |")
    return "\n".join(lines).strip()
