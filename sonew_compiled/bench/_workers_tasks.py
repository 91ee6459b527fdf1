"""The tasks of the table of workers that one process does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sonew_compiled.bench._pairs import Pairs, measure_pairs
from sonew_compiled.bench._speed_settings import SpeedSettings
from sonew_compiled.bench._steps import compile_step
from sonew_compiled.bench._update import load_step, random_batch
from sonew_compiled.contract import GRADIENTS
from sonew_compiled.runtime import Alone, Program, TrainingState, open_bundle, open_device
from sonew_compiled.runtime.stepper import stepper_of

# The steps of each side of a pair.
_STEPS = 3


def compile_parts(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """The bundles of one micro-batch in a batch, `whole`, and of two, `halves`, without the check."""
    asked = SpeedSettings(**settings)
    for name, parts in (("whole", 1), ("halves", 2)):
        compile_step(asked, "tridiag-sonew", Path(folder, name), micro_batch=asked.batch_size // parts)
    return {}


def measure_split(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """The two halves of a step over the whole, with one micro-batch, and with the sum on the host."""
    asked = SpeedSettings(**settings)
    program = Program.load(open_bundle(Path(folder, "whole")), open_device())
    device, spec = program.device, program.manifest.functions[GRADIENTS].outputs[0]
    stepper = stepper_of(program, Alone())
    rate = device.upload(np.array(1e-6, np.float32))
    placed = stepper.place(random_batch(program))
    one, other = (TrainingState.initial(program, seed=0) for _ in range(2))
    zeros = np.zeros(spec.shape, np.float32)

    def split() -> None:
        stepper.step(one, placed, rate)

    def with_a_sum() -> None:
        bucket = other.gradients(placed[0], rate)
        array = device.memory(bucket, spec.dtype, spec.shape)
        assert array is not None, device.name
        np.add(array, zeros, out=array)
        other.update(bucket, rate)

    fused = processor_time(load_step(program))
    return {
        key: side_by_side(measure_pairs(processor_time(call), fused, asked.pairs))
        for key, call in (("split_over_fused", split), ("bucket_over_fused", with_a_sum))
    }


def processor_time(call: Callable[[], object]) -> Callable[[], float]:
    """The call as a function that makes it some times and returns the mean processor seconds of all threads here.

    Threads that share a core take more of them while both are at work, which varies from step to step.
    """

    def timed() -> float:
        started = time.process_time()
        for _ in range(_STEPS):
            call()
        return (time.process_time() - started) / _STEPS

    return timed


def side_by_side(pairs: Pairs) -> dict[str, Any]:
    """The measurement as the tables have it, with the median of the pairs' own ratios.

    Processor seconds vary with what else the core does, which is alike for the two of a pair.
    """
    return pairs.described() | {"ratio": statistics.median(pairs.each)}
