"""Long processes: memory, descriptors and threads do not grow."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
from campaigns.conduct import seeds

from sonew_compiled.runtime import Dataset, Device, Program, TrainingState, bind, open_bundle

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """The resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def held() -> tuple[int, int, int]:
    """The numbers of descriptors, of system threads and of Python threads."""
    return (
        sum(1 for _ in Path("/proc/self/fd").iterdir()),
        sum(1 for _ in Path("/proc/self/task").iterdir()),
        threading.active_count(),
    )


def test_two_hundred_loads_leave_nothing(tiny_bundle: Path, cpu: Device) -> None:
    bundle = open_bundle(tiny_bundle)

    def load() -> None:
        TrainingState.initial(Program.load(bundle, cpu), seed=0).download()

    for _ in range(20):
        load()
    before, memory = held(), resident()
    for _ in range(200):
        load()
    assert held() == before
    assert resident() - memory < 8 << 20, f"grew by {resident() - memory:,} bytes"


def test_ten_thousand_steps_take_no_more_memory(tiny_bundle: Path, tiny_data: Dataset, cpu: Device) -> None:
    program = Program.load(open_bundle(tiny_bundle), cpu)
    data = bind(tiny_data.train, program.manifest.batch, program.manifest.classes)
    state = TrainingState.initial(program, seed=0)
    rate = cpu.upload(np.array(1e-3, np.float32))
    batch = program.upload_batch(data.training_batch(0, 0))

    def steps(count: int) -> float:
        return [state.step(batch, rate) for _ in range(count)][-1]

    first = steps(500)
    before, memory = held(), resident()
    count = 10_000 * len(seeds(1))
    last = steps(count)
    assert last < first
    assert held() == before
    assert resident() - memory < 4 << 20, f"grew by {resident() - memory:,} bytes in {count:,} steps"
