"""The division of the optimizer's state among workers: each keeps and updates that of its own tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sonew_compiled.contract import (
    EVAL_STEP,
    GRADIENTS,
    PREDICT,
    STATE_ROLES,
    UPDATE_COMMON,
    Driver,
    Role,
)
from sonew_compiled.errors import UsageError
from sonew_compiled.mpi_environment import is_fault_tolerant
from sonew_compiled.runtime.device import Buffer
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.manifest import Manifest, TensorSpec
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.state import TrainingState
from sonew_compiled.runtime.workers import Ranges, Workers, is_even


def shards_of(program: Program, workers: Workers, *, asked: bool | None, is_exchanged_elsewhere: bool) -> Shards | None:
    """The division of the state among workers, or None if each has all of it.

    By default the state is divided where that takes less time and loses nothing. On the processor an even division
    exchanges about as many bytes as none, and an update takes a part of its time. But if MPI lets workers outlive
    another one, they can save the last whole step only if each has all of the state.

    Args:
      program: the loaded bundle.
      workers: the workers.
      asked: whether the user wants a division; None for the default.
      is_exchanged_elsewhere: whether the gradients do not go through the workers' own exchange.

    Raises:
      UsageError: the user wants a division, and the update has no parts.
    """
    if asked is not None:
        return Shards(program, workers) if asked else None
    manifest = program.manifest
    is_near = program.device.driver == Driver.LOCAL and not is_exchanged_elsewhere
    if workers.count == 1 or not manifest.update_parts or not is_near or is_fault_tolerant():
        return None
    shards = Shards(program, workers)
    return None if shards.wanted is None or manifest.exchange != "f32" else shards


class Shards:
    """The parts of the state that the workers keep, by the parts into which `update` was cut.

    Every worker has what the gradients and evaluation read, above all the parameters, and the small tensors that are
    common to all parts. Of the rest it has the tensors of its own parts. After an update the workers give each other
    those of their tensors that all have.

    Attributes:
      owners: the worker that keeps a tensor, by name, of those that not all workers have.
      held: the names of the tensors that this worker has.
      wanted: for each worker the numbers of the bucket that its update reads; None if some read far more than others.
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
        parts = [[name for name in of_part if worker_of[name] == rank] for rank in range(workers.count)]
        self.wanted = _wanted(manifest, parts)

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
        sent = list(enumerate(self._sent))
        places = [[self._place(spec, state.buffers[spec.name], rank) for spec in specs] for rank, specs in sent]
        self._workers.spread([[array for array, _ in each] for each in places])
        for (rank, specs), each in zip(sent, places, strict=True):
            for spec, (array, is_copy) in zip(specs, each, strict=True):
                if is_copy and rank != self._workers.rank:
                    state.buffers[spec.name] = self._program.upload(spec, array)

    def _place(self, spec: TensorSpec, buffer: Buffer, rank: int) -> tuple[np.ndarray, bool]:
        """The array from which a worker's tensor is sent or to which it comes, and whether it is not the device's."""
        array = self._program.memory(spec, buffer)
        if array is not None:
            return array, False
        is_mine = rank == self._workers.rank
        return (self._program.download(spec, buffer) if is_mine else np.empty(spec.shape, as_dtype(spec.dtype))), True


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


def _wanted(manifest: Manifest, parts: Sequence[Sequence[str]]) -> list[Ranges] | None:
    """The numbers of the bucket that each worker needs for the common part and its own parts; None if uneven."""
    reads = manifest.bucket_reads
    if not {UPDATE_COMMON, *manifest.update_parts} <= reads.keys():
        return None
    found = [_joined(itertools.chain(reads[UPDATE_COMMON], *(reads[name] for name in each))) for each in parts]
    sizes = [sum(end - start for start, end in ranges) for ranges in found]
    return list(found) if is_even(sizes, manifest.functions[GRADIENTS].outputs[0].size) else None


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers in disjoint ranges."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _bytes(specs: Sequence[TensorSpec]) -> int:
    return sum(spec.nbytes for spec in specs)
