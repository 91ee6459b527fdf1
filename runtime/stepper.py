"""Steps on a batch: on the whole batch, or on micro-batches whose sum the update takes."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from sonew_compiled.contract import GRADIENTS, TRAIN_STEP
from sonew_compiled.errors import UsageError
from sonew_compiled.runtime.device import Buffer
from sonew_compiled.runtime.examples import Examples
from sonew_compiled.runtime.nccl import Nccl
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.reduce import Node, push
from sonew_compiled.runtime.shards import Shards
from sonew_compiled.runtime.state import TrainingState
from sonew_compiled.runtime.workers import Workers, add, shared

Placed: TypeAlias = Sequence[dict[str, Buffer]]
"""A batch on the device, in one part or in micro-batches."""


class Stepper(Protocol):
    """The two operations of a training loop on a batch.

    Attributes:
      within: the examples of a batch on which this worker works.
    """

    within: slice

    def place(self, batch: Mapping[str, np.ndarray]) -> Placed:
        """Copies these examples to the device; it may run in another thread than `step`."""

    def take(self, examples: Examples, indices: np.ndarray) -> Placed:
        """Makes this worker's part of a batch of the examples of these numbers."""

    def step(self, state: TrainingState, placed: Placed, learning_rate: Buffer | float) -> float:
        """Does one training step in place, and returns the loss of the batch before the update."""


def training_batches(stepper: Stepper, examples: Examples, seed: int, step: int) -> Generator[Placed, None, None]:
    """An endless generator of batches on the device from number `step` on; close it in the end.

    Those that are copied are made and copied while the one before is at work: devices take buffers from any thread.
    """
    data, within = examples.data, stepper.within
    if not examples.is_resident:
        yield from data.training_batches(seed, step, stepper.place, within)
    for number in itertools.count(step):
        yield stepper.take(examples, data.training_indices(seed, number, within))


def stepper_of(program: Program, workers: Workers, shards: Shards | None = None, nccl: Nccl | None = None) -> Stepper:
    """The stepper of a bundle, which uses micro-batches if the bundle was compiled for them.

    Args:
      program: the loaded bundle.
      workers: the workers that share a batch.
      shards: the division of the state, if it is divided; the bundle has micro-batches then.
      nccl: what adds the buckets of the workers, if it is not the workers' own exchange.

    Raises:
      UsageError: there are more workers than micro-batches, or NCCL cannot add in the order of the host.
    """
    parts, path = program.manifest.micro_batches, program.bundle.path
    if workers.count > 1 and not parts:
        raise UsageError(
            f"{path} was compiled for one worker, and there are {workers.count}: compile it with --micro-batch"
        )
    if workers.count > max(parts, 1):
        raise UsageError(
            f"a batch of {path} has {parts} micro-batches, too few for {workers.count} workers: start fewer, or "
            f"compile it with a --micro-batch of {program.manifest.batch_size // workers.count} or less"
        )
    if nccl is not None and parts:
        nccl.check_shared(parts, path)
    return _InMicroBatches(program, workers, shards, nccl) if parts else _AsAWhole(program)


class _AsAWhole:
    within = slice(None)

    def __init__(self, program: Program) -> None:
        self._program = program

    def place(self, batch: Mapping[str, np.ndarray]) -> Placed:
        return [self._program.upload_batch(batch)]

    def take(self, examples: Examples, indices: np.ndarray) -> Placed:
        return [examples.batch(indices, function=TRAIN_STEP)]

    def step(self, state: TrainingState, placed: Placed, learning_rate: Buffer | float) -> float:
        (batch,) = placed
        return state.step(batch, learning_rate)


class _InMicroBatches:
    def __init__(self, program: Program, workers: Workers, shards: Shards | None, nccl: Nccl | None) -> None:
        self._program = program
        self._workers = workers
        self._nccl = nccl
        self._update = TrainingState.update if shards is None else shards.update
        self._wanted = None if shards is None else shards.wanted
        self._spec = program.manifest.functions[GRADIENTS].outputs[0]
        size = program.manifest.micro_batch_size
        self._parts = program.manifest.micro_batches
        self._mine = shared(self._parts, workers.rank, workers.count)
        self.within = slice(self._mine.start * size, self._mine.stop * size)
        self._slices = [slice(start, start + size) for start in range(0, len(self._mine) * size, size)]

    def place(self, batch: Mapping[str, np.ndarray]) -> Placed:
        parts = [{field: array[part] for field, array in batch.items()} for part in self._slices]
        return [self._program.upload_batch(part, function=GRADIENTS) for part in parts]

    def take(self, examples: Examples, indices: np.ndarray) -> Placed:
        return [examples.batch(indices[part], function=GRADIENTS) for part in self._slices]

    def step(self, state: TrainingState, placed: Placed, learning_rate: Buffer | float) -> float:
        if self._parts == 1:  # there is nothing to add, so the bucket stays on the device
            return self._update(state, state.gradients(placed[0], learning_rate), learning_rate)
        if self._nccl is not None:
            return self._update(state, self._sum_by_nccl(self._nccl, state, placed, learning_rate), learning_rate)
        nodes: list[Node[np.ndarray]] = []
        first: Buffer | None = None
        for number, batch in zip(self._mine, placed, strict=True):
            buffer = state.gradients(batch, learning_rate)
            array = self._program.device.memory(buffer, self._spec.dtype, self._spec.shape)
            if number == self._mine.start and array is not None:
                first = buffer
            if array is None:
                array = self._program.download(self._spec, buffer)
            push(nodes, Node(number, 1, array), add)
        is_rounded = self._program.manifest.exchange == "bf16"
        total = self._workers.sum(nodes, self._parts, is_rounded=is_rounded, wanted=self._wanted)
        # The sum is in the memory of the first bucket, which is the device's own, or in a copy.
        bucket = self._program.upload(self._spec, total) if first is None else first
        return self._update(state, bucket, learning_rate)

    def _sum_by_nccl(self, nccl: Nccl, state: TrainingState, placed: Placed, learning_rate: Buffer | float) -> Buffer:
        buckets = (state.gradients(batch, learning_rate) for batch in placed)
        if len(placed) == 1:
            bucket = next(buckets)
        else:
            # This worker's own buckets are added on the host: no function of a bundle adds two.
            nodes: list[Node[np.ndarray]] = []
            for number, each in zip(self._mine, buckets, strict=True):
                push(nodes, Node(number, 1, self._program.download(self._spec, each)), add)
            (node,) = nodes
            bucket = self._program.upload(self._spec, node.value)
        (size,) = self._spec.shape
        return nccl.sum(bucket, size)
