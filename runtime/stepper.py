"""How a batch becomes a step: as a whole, or in micro-batches whose sum the update takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from sonew_compiled.contract import BUCKET, GRADIENTS
from sonew_compiled.runtime.device import Buffer
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.reduce import Node, push, total
from sonew_compiled.runtime.state import TrainingState

Placed: TypeAlias = Sequence[dict[str, Buffer]]
"""A batch on the device, in one part or in micro-batches."""


class Stepper(Protocol):
    """What a training loop does with a batch."""

    def place(self, batch: Mapping[str, np.ndarray]) -> Placed:
        """Copies a batch to the device; in another thread than `step` if one likes."""

    def step(self, state: TrainingState, placed: Placed, learning_rate: Buffer) -> float:
        """One training step in place; the loss of the batch before the update."""


def stepper_of(program: Program) -> Stepper:
    """In micro-batches if the bundle was compiled for them."""
    return _InMicroBatches(program) if program.manifest.micro_batch_size else _AsAWhole(program)


class _AsAWhole:
    def __init__(self, program: Program) -> None:
        self._program = program

    def place(self, batch: Mapping[str, np.ndarray]) -> Placed:
        return [self._program.upload_batch(batch)]

    def step(self, state: TrainingState, placed: Placed, learning_rate: Buffer) -> float:
        (batch,) = placed
        return state.step(batch, learning_rate)


@dataclass(frozen=True)
class _Bucket:
    """The sum over some micro-batches: `array` is where it is added up, `buffer` that memory if it is the device's."""

    array: np.ndarray
    buffer: Buffer | None


class _InMicroBatches:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._spec = program.manifest.functions[GRADIENTS].outputs[0]
        assert self._spec.name == BUCKET, self._spec

    def place(self, batch: Mapping[str, np.ndarray]) -> Placed:
        size = self._program.manifest.micro_batch_size
        examples = len(next(iter(batch.values())))
        return [
            self._program.upload_batch(
                {field: array[start : start + size] for field, array in batch.items()}, function=GRADIENTS
            )
            for start in range(0, examples, size)
        ]

    def step(self, state: TrainingState, placed: Placed, learning_rate: Buffer) -> float:
        if len(placed) == 1:  # nothing to add: the bucket does not leave the device
            return state.update(state.gradients(placed[0], learning_rate), learning_rate)
        nodes: list[Node[_Bucket]] = []
        for number, batch in enumerate(placed):
            push(nodes, Node(number, 1, self._reached(state.gradients(batch, learning_rate))), _add)
        bucket = total(nodes, _add)
        buffer = bucket.buffer if bucket.buffer is not None else self._program.upload(self._spec, bucket.array)
        return state.update(buffer, learning_rate)

    def _reached(self, buffer: Buffer) -> _Bucket:
        """A bucket where the host can add to it: in the device's memory, or a copy."""
        array = self._program.device.memory(buffer, self._spec.dtype, self._spec.shape)
        if array is not None:
            return _Bucket(array, buffer)
        return _Bucket(self._program.download(self._spec, buffer), None)


def _add(left: _Bucket, right: _Bucket) -> _Bucket:
    np.add(left.array, right.array, out=left.array)
    return left
