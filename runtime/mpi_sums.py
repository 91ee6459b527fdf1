"""Sums of vectors over workers that MPI connects, in the order of `reduce.py`.

Each worker adds a slice of the vector, and sends the sum to the others. If the workers need different numbers of it,
each is sent only these, and adds them itself.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from sonew_compiled.runtime.mpi_start import MPI
from sonew_compiled.runtime.reduce import Node, push, total
from sonew_compiled.runtime.workers import Ranges, add, shared

# Up to this size in bytes, each worker receives all buckets and adds them itself: one message instead of two.
_SMALL = 1 << 16

NUMBERS = 0
"""The tag of messages with numbers."""

_Row: TypeAlias = list[tuple[int, int]]
"""The start and the size of each of a worker's nodes."""


def finish(requests: Sequence[MPI.Request]) -> None:
    """Waits for messages one by one: the error of a wait for several does not say that a worker has ended."""
    for request in requests:
        request.Wait()


class MpiSums:
    """The sums over the workers of a communicator, each of which calls the same methods."""

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm
        self._rank = comm.Get_rank()
        self._count = comm.Get_size()
        self._received = np.empty(0, np.float32)

    def sum(
        self, nodes: Sequence[Node[np.ndarray]], parts: int, *, is_rounded: bool, wanted: Sequence[Ranges] | None
    ) -> np.ndarray:
        """The sum over the batch; see `Workers.sum`."""
        rows = [_row(shared(parts, rank, self._count)) for rank in range(self._count)]
        assert rows[self._rank] == [(node.start, node.size) for node in nodes], (rows, nodes)
        values = [node.value for node in nodes]
        # A sum of several micro-batches is not of bfloat16.
        is_halved = is_rounded and parts == self._count
        if values[0].nbytes <= _SMALL:
            self._sum_whole(values, rows)
        elif wanted is None or is_halved:
            self._sum_slices(values, rows, is_halved=is_halved)
        else:
            self._sum_wanted(values, rows, wanted)
        return values[0]

    def _sum_whole(self, values: list[np.ndarray], rows: list[_Row]) -> None:
        into = values[0]
        counts = [len(row) * into.size for row in rows]
        received = np.empty(sum(counts), into.dtype)
        self._comm.Allgatherv(_joined(values), [received, counts])
        np.copyto(into, _total(rows, received, into.size))

    def _sum_slices(self, values: list[np.ndarray], rows: list[_Row], *, is_halved: bool) -> None:
        into = values[0]
        bounds = [into.size * rank // self._count for rank in range(self._count + 1)]
        slices = [slice(start, end) for start, end in itertools.pairwise(bounds)]
        lengths = [each.stop - each.start for each in slices]
        length = lengths[self._rank]
        received = self._halves(into, slices) if is_halved else self._slices(values, slices, rows)
        np.copyto(into[slices[self._rank]], _total(rows, received, length))
        self._comm.Allgatherv(MPI.IN_PLACE, [into, lengths])

    def _sum_wanted(self, values: list[np.ndarray], rows: list[_Row], wanted: Sequence[Ranges]) -> None:
        own, mine = values[0], wanted[self._rank]
        others = [rank for rank in range(self._count) if rank != self._rank]
        length = sum(end - start for start, end in mine)
        received = self._room(sum(len(rows[rank]) for rank in others) * length, own.dtype).reshape(-1, length)
        arriving = iter(received)
        vectors = {rank: [next(arriving) for _ in rows[rank]] for rank in others}
        requests = [self._comm.Irecv(vector, rank, NUMBERS) for rank in others for vector in vectors[rank]]
        for rank in others:
            kind = _part_type(tuple(wanted[rank]))
            requests += [self._comm.Isend([value, 1, kind], rank, NUMBERS) for value in values]
        finish(requests)
        at = 0
        for start, end in mine:
            here = slice(at, at + end - start)
            parts = {rank: [vector[here] for vector in each] for rank, each in vectors.items()}
            parts[self._rank] = [value[start:end] for value in values]
            into = parts[self._rank][0]
            pairs = [pair for rank in sorted(parts) for pair in zip(rows[rank], parts[rank], strict=True)]
            found = total([Node(*place, part) for place, part in pairs], functools.partial(_add_into, into))
            if found is not into:
                np.copyto(into, found)
            at = here.stop

    def _room(self, size: int, dtype: np.dtype) -> np.ndarray:
        """An array that is kept, since the memory of a new one would first have to be mapped, which takes longer."""
        if self._received.size != size or self._received.dtype != dtype:
            self._received = np.empty(size, dtype)
        return self._received

    def _slices(self, values: list[np.ndarray], slices: list[slice], rows: list[_Row]) -> np.ndarray:
        """This worker's slice of the vectors of all, one after the other."""
        lengths = [each.stop - each.start for each in slices]
        sent = _joined([value[each] for each in slices for value in values]) if len(values) > 1 else values[0]
        incoming = [len(row) * lengths[self._rank] for row in rows]
        received = self._room(sum(incoming), sent.dtype)
        self._comm.Alltoallv([sent, [len(values) * each for each in lengths]], [received, incoming])
        return received

    def _halves(self, vector: np.ndarray, slices: list[slice]) -> np.ndarray:
        """The same of one vector of each worker, of whose numbers the upper halves are sent.

        The first number of the vector is the loss, whose lower half is sent before the first slice.
        """
        bits = vector.view(np.uint32)
        sent = np.empty(bits.size + 1, np.uint16)
        sent[0] = bits[0] & 0xFFFF
        sent[1:] = bits >> 16
        counts = [each.stop - each.start + (each.start == 0) for each in slices]
        received = np.empty((self._count, counts[self._rank]), np.uint16)
        self._comm.Alltoallv([sent, counts], [received, [counts[self._rank]] * self._count])
        is_first = slices[self._rank].start == 0
        whole = received[:, int(is_first) :].astype(np.uint32) << 16
        if is_first:
            whole[:, 0] |= received[:, 0]
        return whole.view(np.float32).reshape(-1)


def _row(parts: range) -> _Row:
    """The nodes that `push` makes of these micro-batches."""
    nodes: list[Node[None]] = []
    for number in parts:
        push(nodes, Node(number, 1, None), lambda left, right: None)
    return [(node.start, node.size) for node in nodes]


def _total(rows: list[_Row], received: np.ndarray, length: int) -> np.ndarray:
    """The sum over the batch of consecutive vectors, in the order of the workers' nodes."""
    places = [place for row in rows for place in row]
    values = received.reshape(len(places), length)
    return total([Node(*place, value) for place, value in zip(places, values, strict=True)], add)


def _add_into(into: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The sum of two vectors in the memory of one of them, of `into` if it is one."""
    summed = right if right is into else left
    np.add(left, right, out=summed)
    return summed


@functools.cache
def _part_type(ranges: tuple[tuple[int, int], ...]) -> MPI.Datatype:
    """The type of a message of these numbers of a float32 vector."""
    return MPI.FLOAT.Create_indexed([end - start for start, end in ranges], [start for start, _ in ranges]).Commit()


def _joined(values: list[np.ndarray]) -> np.ndarray:
    return values[0] if len(values) == 1 else np.concatenate(values)
