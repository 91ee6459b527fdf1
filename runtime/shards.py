"""The division of the optimizer's state among workers: each keeps and updates that of its own tensors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from sonew_compiled.contract import (
    EVAL_STEP,
    GRADIENTS,
    PREDICT,
    STATE_ROLES,
    Role,
)
from sonew_compiled.errors import UsageError
from sonew_compiled.runtime.device import Buffer
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.manifest import TensorSpec
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.state import TrainingState
from sonew_compiled.runtime.workers import Workers


class Shards:
    """The parts of the state that the workers keep, by the parts into which `update` was cut.

    Every worker has what the gradients and evaluation read, above all the parameters, and the small tensors that are
    common to all parts. Of the rest it has the tensors of its own parts. After an update the workers give each other
    those of their tensors that all have.

    Attributes:
      owners: the worker that keeps a tensor, by name, of those that not all workers have.
      held: the names of the tensors that this worker has.
    """

    def __init__(self, program: Program, workers: Workers) -> None:
        """Divides the state of a bundle.

        Raises:
          UsageError: its update has no parts.
        """
        manifest = program.manifest
        if not manifest.update_parts:
            raise _undivided(program)
        self._program = program
        self._workers = workers
        read = [manifest.functions[name] for name in (GRADIENTS, EVAL_STEP, PREDICT) if program.has(name)]
        needed = {spec.name for function in read for spec in function.inputs}
        of_part = {name: _state(manifest.functions[name].outputs) for name in manifest.update_parts}
        exchanged = {
            name: [spec for spec in specs if spec.name in needed or spec.role == Role.PARAMETER]
            for name, specs in of_part.items()
        }
        kept = {name: [spec for spec in specs if spec not in exchanged[name]] for name, specs in of_part.items()}
        worker_of = divided({name: (_bytes(kept[name]), _bytes(of_part[name])) for name in of_part}, workers.count)
        self.owners = {spec.name: worker_of[name] for name in of_part for spec in kept[name]}
        self.held = {spec.name for spec in manifest.state if self.owners.get(spec.name, workers.rank) == workers.rank}
        self._mine = [name for name in of_part if worker_of[name] == workers.rank]
        self._sent = [
            [spec for name in of_part if worker_of[name] == rank for spec in exchanged[name]]
            for rank in range(workers.count)
        ]
        self._bounds = [0, *itertools.accumulate(map(_bytes, self._sent))]
        self._vector = np.empty(self._bounds[-1], np.uint8)

    def update(self, state: TrainingState, bucket: Buffer, learning_rate: Buffer) -> float:
        """Does the rest of a step with the batch's bucket, and returns the batch's loss; see `TrainingState.update`."""
        loss = state.update(bucket, learning_rate, parts=self._mine)
        self._exchange(state)
        return loss

    def whole(self, held: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The whole state, for worker 0; the others get what they have.

        Args:
          held: the tensors that this worker has, on the host.
        """
        found: dict[str, np.ndarray] = {}
        for spec in self._program.manifest.state:
            owner, array = self.owners.get(spec.name, 0), held.get(spec.name)
            if array is None and self._workers.rank == 0:
                array = np.empty(spec.shape, as_dtype(spec.dtype))
            if owner:
                self._workers.bring(np.empty(0, np.uint8) if array is None else array, owner)
            if array is not None:
                found[spec.name] = array
        return found

    def _exchange(self, state: TrainingState) -> None:
        rank = self._workers.rank
        for spec, place in self._places(rank):
            array = self._program.view(spec, state.buffers[spec.name])
            place[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._workers.spread(self._vector, self._bounds)
        for other in range(self._workers.count):
            for spec, place in self._places(other) if other != rank else ():
                array = place.view(as_dtype(spec.dtype)).reshape(spec.shape)
                state.buffers[spec.name] = self._program.upload(spec, array)

    def _places(self, rank: int) -> list[tuple[TensorSpec, np.ndarray]]:
        """A worker's tensors that all workers get, with their places in the vector."""
        ends = itertools.accumulate((spec.nbytes for spec in self._sent[rank]), initial=self._bounds[rank])
        places = [self._vector[start:end] for start, end in itertools.pairwise(ends)]
        return list(zip(self._sent[rank], places, strict=True))


def divided(sizes: Mapping[str, tuple[int, ...]], count: int) -> dict[str, int]:
    """The worker of each part: the largest part that is left goes to the worker that has least.

    Args:
      sizes: for each part its size in several measures, the most important first.
      count: the number of workers.
    """
    loads = [[0] * len(next(iter(sizes.values()))) for _ in range(count)]
    found = {}
    for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
        worker = loads.index(min(loads))
        loads[worker] = [load + size for load, size in zip(loads[worker], sizes[name], strict=True)]
        found[name] = worker
    return found


def _undivided(program: Program) -> UsageError:
    path, manifest = program.bundle.path, program.manifest
    if not manifest.micro_batches:
        return UsageError(f"--shard-state: {path} was not compiled for workers: compile it with --micro-batch")
    name = manifest.optimizer.get("name", "")
    return UsageError(
        f"--shard-state: {name} of {path} updates the tensors together, so that its state cannot be divided: leave it "
        "out, or choose another optimizer"
    )


def _state(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    return [spec for spec in specs if spec.role in STATE_ROLES]


def _bytes(specs: Sequence[TensorSpec]) -> int:
    return sum(spec.nbytes for spec in specs)
