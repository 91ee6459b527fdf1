"""The measurements of two workers together: `mpirun -n 2 python -m sonew_compiled.bench._workers_job FOLDER PAIRS`.

The folder holds the bundle `halves`, and receives `job.json`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sonew_compiled.bench._pairs import Pairs, measure_pairs
from sonew_compiled.bench._update import load_step, random_batch
from sonew_compiled.bench._workers_tasks import processor_time, side_by_side
from sonew_compiled.contract import GRADIENTS
from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import Program, TrainingState, Workers, connect, open_bundle, open_device
from sonew_compiled.runtime.device import Buffer
from sonew_compiled.runtime.reduce import Node
from sonew_compiled.runtime.shards import Shards, shards_of
from sonew_compiled.runtime.stepper import Placed, stepper_of

_Clock = Callable[[Callable[[], object]], Callable[[], float]]


def measure(folder: Path, pairs: int, workers: Workers) -> dict[str, object]:
    """The sum against a copy, and a shared step of each worker against a step on the whole batch."""
    program = Program.load(open_bundle(folder / "halves"), open_device())
    spec = program.manifest.functions[GRADIENTS].outputs[0]
    vector, copy = np.ones(spec.shape, np.float32), np.empty(spec.shape, np.float32)
    node = Node(workers.rank, 1, vector)

    def met(call: Callable[[], object], timed: _Clock) -> Callable[[], float]:
        def together() -> float:
            workers.meet()
            return timed(call)()

        return together

    def copied() -> None:
        np.copyto(copy, vector)

    summed = measure_pairs(met(lambda: workers.sum([node], workers.count), _wall_time), met(copied, _wall_time), pairs)
    # As `sonew run` divides it.
    shards = shards_of(program, workers, asked=None, is_exchanged_elsewhere=False)
    stepper = stepper_of(program, workers, shards)
    batch = random_batch(program)
    placed = stepper.place({field: array[stepper.within] for field, array in batch.items()})
    rate = program.device.upload(np.array(1e-6, np.float32))
    state = TrainingState.initial(program, seed=0)
    if shards is not None:
        state.keep(shards.held)
    alone = load_step(program)
    steps = measure_pairs(
        met(alone, processor_time), met(lambda: stepper.step(state, placed, rate), processor_time), pairs
    )

    def of_slowest(seconds: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(map(max, zip(*workers.gather(seconds), strict=True)))

    return {
        "allreduce_over_copy": summed.described(),
        "cpu_speedup_2": side_by_side(Pairs(a=of_slowest(steps.a), b=of_slowest(steps.b))),
        "shard_state_2": _divided_state(program, workers, placed, rate),
    }


def _divided_state(program: Program, workers: Workers, placed: Placed, rate: Buffer) -> dict[str, object]:
    """The bytes of the state that each worker has after a step on a divided state, and the most of them ÷ the whole."""
    manifest = program.manifest
    # Some optimizers update all tensors together, and some models have one tensor.
    shards = Shards(program, workers) if manifest.update_parts else None
    state = TrainingState.initial(program, seed=0)
    if shards is not None:
        state.keep(shards.held)
    stepper_of(program, workers, shards).step(state, placed, rate)
    held = workers.gather(sum(spec.nbytes for spec in manifest.state if spec.name in state.buffers))
    return {"ratio": max(held) / manifest.state_bytes, "held_bytes": held, "whole_bytes": manifest.state_bytes}


def _wall_time(call: Callable[[], object]) -> Callable[[], float]:
    def timed() -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    return timed


def main() -> None:
    """Measures, and has worker 0 write the results."""
    folder, pairs = Path(sys.argv[1]), int(sys.argv[2])
    try:
        with connect() as workers:
            found = measure(folder, pairs, workers)
            if workers.rank == 0:
                (folder / "job.json").write_text(json.dumps(found), encoding="utf-8")
    except SonewError as error:
        sys.stderr.write(f"sonew: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
