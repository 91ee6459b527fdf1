"""Workers that MPI connects, by `mpi4py`.

Every exchange begins with a vote, in which each worker tells the others whether it goes on, wishes to stop, or has
failed. A worker that fails between two exchanges takes part in the next one too, to report its failure. So no worker is
left waiting while all live. If one is killed, MPI's launcher ends the others, or, with its fault tolerance, lets them
save what they have done.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, NoReturn, Self, TypeAlias, TypeVar

import numpy as np

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.cores import available_cores, share_of, use_cores
from sonew_compiled.runtime.interruption import Interrupted
from sonew_compiled.runtime.mpi_start import MPI, prepare_end, start_mpi
from sonew_compiled.runtime.reduce import Node, push, total
from sonew_compiled.runtime.workers import AgreedError, Wait, WorkerLostError, add, shared

T = TypeVar("T")

_GO_ON, _STOP, _FAILED = range(3)
# The tag of votes, and one that no message has; other messages have none.
_VOTES, _NEVER = 1, 2
# Up to this size in bytes, each worker receives all buckets and adds them itself: one message instead of two.
_SMALL = 1 << 16
# The seconds for which a worker asks MPI again and again whether the others have come, and of its naps after that. It
# may share its core with one that is still at work.
_EAGER = 2e-4
_NAP = 5e-5


class _Failure(NamedTuple):
    """An error in the form in which a worker sends it to the others."""

    host: str
    message: str
    exit_code: int
    is_of_all: bool


class MpiWorkers:
    """The workers of `MPI.COMM_WORLD`; those of one machine share its allowed cores."""

    def __init__(self) -> None:
        start_mpi()
        self._comm = MPI.COMM_WORLD
        self.rank = self._comm.Get_rank()
        self.count = self._comm.Get_size()
        self._wish = _GO_ON
        self._is_stopped = False
        self._is_inside = False
        self._received = np.empty(0, np.float32)
        self._survivors: MPI.Comm | None = None
        try:
            with self._exchange():
                neighbours = self._comm.Split_type(MPI.COMM_TYPE_SHARED, self.rank)
            self.local_rank = neighbours.Get_rank()
            with self._exchange(neighbours):
                allowed = neighbours.allgather(available_cores())
        except WorkerLostError as lost:
            self._end(lost)
        use_cores(share_of(self.local_rank, allowed))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self._leave()
            return
        if self._survivors is not None:
            self._end(error)
        if self._is_inside or isinstance(error, MPI.Exception):
            self._abort(error)
        try:
            agreed = error if isinstance(error, AgreedError) else self._told(error)
        except WorkerLostError as lost:
            self._end(lost)
        prepare_end()
        if self.rank:
            # Ends silently after worker 0 has reported, since no worker leaves MPI before all do.
            sys.exit(agreed.exit_code)
        raise agreed from error

    def _leave(self) -> None:
        """Waits for all workers a last time, so that the loss of one before shows."""
        try:
            self.meet()
        except WorkerLostError as lost:
            self._end(lost)
        prepare_end()

    def meet(self) -> None:
        """Waits for all workers."""
        self._vote(self._wish)

    def stopped(self, wish: bool) -> bool:
        """Whether any worker wished to stop by the last exchange. `wish` counts at the next one."""
        if wish:
            self._wish = _STOP
        return self._is_stopped

    def gather(self, value: T) -> list[T]:
        """The values of all workers in order."""
        self.meet()
        with self._exchange():
            values: list[T] = self._comm.allgather(value)
        return values

    def sum(self, nodes: Sequence[Node[np.ndarray]], parts: int, *, is_rounded: bool = False) -> np.ndarray:
        """The sum over the batch; each worker adds a slice of the vector, and sends it to the others."""
        rows = [_row(shared(parts, rank, self.count)) for rank in range(self.count)]
        assert rows[self.rank] == [(node.start, node.size) for node in nodes], (rows, nodes)
        self.meet()
        values = [node.value for node in nodes]
        with self._exchange():
            if values[0].nbytes <= _SMALL:
                self._sum_whole(values, rows)
            else:
                # A sum of several micro-batches is not of bfloat16.
                self._sum_slices(values, rows, is_halved=is_rounded and parts == self.count)
        return nodes[0].value

    def _sum_whole(self, values: list[np.ndarray], rows: list[_Row]) -> None:
        into = values[0]
        counts = [len(row) * into.size for row in rows]
        received = np.empty(sum(counts), into.dtype)
        self._comm.Allgatherv(_joined(values), [received, counts])
        np.copyto(into, _total(rows, received, into.size))

    def _sum_slices(self, values: list[np.ndarray], rows: list[_Row], *, is_halved: bool) -> None:
        into = values[0]
        bounds = [into.size * rank // self.count for rank in range(self.count + 1)]
        slices = [slice(start, end) for start, end in itertools.pairwise(bounds)]
        lengths = [each.stop - each.start for each in slices]
        length = lengths[self.rank]
        received = self._halves(into, slices) if is_halved else self._slices(values, slices, rows)
        np.copyto(into[slices[self.rank]], _total(rows, received, length))
        self._comm.Allgatherv(MPI.IN_PLACE, [into, lengths])

    def _slices(self, values: list[np.ndarray], slices: list[slice], rows: list[_Row]) -> np.ndarray:
        """This worker's slice of the vectors of all, one after the other."""
        lengths = [each.stop - each.start for each in slices]
        sent = _joined([value[each] for each in slices for value in values]) if len(values) > 1 else values[0]
        incoming = [len(row) * lengths[self.rank] for row in rows]
        # Kept, since the memory of a new array would first have to be mapped, which takes longer than the exchange.
        if self._received.size != sum(incoming) or self._received.dtype != sent.dtype:
            self._received = np.empty(sum(incoming), sent.dtype)
        self._comm.Alltoallv([sent, [len(values) * each for each in lengths]], [self._received, incoming])
        return self._received

    def _halves(self, vector: np.ndarray, slices: list[slice]) -> np.ndarray:
        """The same of one vector of each worker, of whose numbers the upper halves are sent.

        The first number of the vector is the loss, whose lower half is sent before the first slice.
        """
        bits = vector.view(np.uint32)
        sent = np.empty(bits.size + 1, np.uint16)
        sent[0] = bits[0] & 0xFFFF
        sent[1:] = bits >> 16
        counts = [each.stop - each.start + (each.start == 0) for each in slices]
        received = np.empty((self.count, counts[self.rank]), np.uint16)
        self._comm.Alltoallv([sent, counts], [received, [counts[self.rank]] * self.count])
        is_first = slices[self.rank].start == 0
        whole = received[:, int(is_first) :].astype(np.uint32) << 16
        if is_first:
            whole[:, 0] |= received[:, 0]
        return whole.view(np.float32).reshape(-1)

    def spread(self, vector: np.ndarray, bounds: Sequence[int]) -> None:
        """Gives each worker's slice of a vector to all others."""
        self.meet()
        counts = [end - start for start, end in itertools.pairwise(bounds)]
        with self._exchange():
            self._comm.Allgatherv(MPI.IN_PLACE, [vector, counts])

    def bring(self, array: np.ndarray, owner: int) -> None:
        """Copies the array of one worker to that of worker 0."""
        self.meet()
        if owner == 0 or self.rank not in (0, owner):
            return
        content = array.reshape(-1).view(np.uint8)
        with self._exchange():
            if self.rank == owner:
                self._comm.Send(content, dest=0)
            else:
                self._comm.Recv(content, source=owner)

    @contextlib.contextmanager
    def outside(self) -> Iterator[Wait]:
        """A context for an exchange that does not go through MPI."""
        self.meet()

        def wait(is_done: Callable[[], bool]) -> None:
            def is_done_by_the_living() -> bool:
                # MPI raises an error if a worker has ended.
                self._comm.Iprobe(MPI.ANY_SOURCE, _NEVER)
                return is_done()

            _wait_for(is_done_by_the_living)

        with self._exchange():
            yield wait

    def _vote(self, vote: int, failure: _Failure | None = None) -> None:
        with self._exchange():
            highest = self._highest(vote)
            told = self._comm.allgather(failure) if highest == _FAILED else []
        self._is_stopped = self._is_stopped or highest == _STOP
        failures = {rank: each for rank, each in enumerate(told) if each is not None}
        if failures:
            rank, first = next(iter(failures.items()))
            messages = {each.message for each in failures.values()}
            is_of_all = first.is_of_all or (len(messages) == 1 and len(failures) == self.count)
            where = "" if is_of_all or rank == 0 else f"worker {rank} on {first.host}: "
            raise AgreedError(where + first.message, first.exit_code)

    def _highest(self, vote: int) -> int:
        """The highest vote of all, once all have voted.

        In each round every worker has heard, through others, from twice as many. A collective operation of MPI would
        keep the core busy while it waits, and one that does not wait writes lines of its own when a worker is lost.
        """
        votes = np.array([vote], np.int32)
        other = np.empty_like(votes)
        distance = 1
        while distance < self.count:
            receiver, sender = (self.rank + distance) % self.count, (self.rank - distance) % self.count
            arriving = self._comm.Irecv(other, sender, _VOTES)
            self._comm.Send(votes, receiver, _VOTES)
            _wait_for(arriving.Test)
            np.maximum(votes, other, out=votes)
            distance *= 2
        return int(votes[0])

    def _told(self, error: BaseException) -> AgreedError:
        """Takes part in the others' next exchange with an error, and returns the common error."""
        failure = _Failure(
            host=socket.gethostname(),
            message=_line(error),
            exit_code=getattr(error, "exit_code", 1),
            is_of_all=isinstance(error, Interrupted),
        )
        try:
            self._vote(_FAILED, failure)
        except AgreedError as agreed:
            return agreed
        raise AssertionError("a vote with a failure fails")

    @contextlib.contextmanager
    def _exchange(self, *others: MPI.Comm) -> Iterator[None]:
        """A context for communication, in which workers cannot agree on an error, and the end of a worker shows.

        Without `--with-ft ulfm` MPI's launcher ends all workers instead. `others` are further communicators in use.
        """
        self._is_inside = True
        try:
            yield
        except MPI.Exception as error:
            if error.Get_error_class() not in (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED):
                raise
            # The others may be in an exchange that the lost worker has finished.
            for comm in (self._comm, *others):
                comm.Revoke()
            self._survivors = self._comm.Shrink()
            lost = self._comm.Get_failed()
            ranks = MPI.Group.Translate_ranks(lost, list(range(lost.Get_size())), self._comm.Get_group())
            raise WorkerLostError(sorted(ranks)) from None
        self._is_inside = False

    def _end(self, error: BaseException) -> NoReturn:
        """Ends this survivor; the others live until the first of them has saved what it can."""
        assert self._survivors is not None
        if self._survivors.Get_rank() == 0:
            _say(f"sonew: {_line(error)}")
            if self._survivors.Get_size() > 1:
                self._comm.Abort(1)
        else:
            with contextlib.suppress(MPI.Exception):
                self._survivors.Barrier()
        # MPI's own end waits for the lost worker, and after an MPI_Abort of the only survivor the launcher returns 0.
        os._exit(1)

    def _abort(self, error: BaseException) -> NoReturn:
        """Ends all workers from within an exchange, in which they can no longer agree."""
        _say(f"sonew: worker {self.rank} on {socket.gethostname()}: {_line(error)}")
        self._comm.Abort(1)
        raise AssertionError("MPI_Abort does not return")


def _wait_for(is_done: Callable[[], bool]) -> None:
    """Waits for a worker that may have more to do."""
    until = time.perf_counter() + _EAGER
    while not is_done():
        if time.perf_counter() > until:
            time.sleep(_NAP)


_Row: TypeAlias = list[tuple[int, int]]
"""The start and the size of each of a worker's nodes."""


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


def _joined(values: list[np.ndarray]) -> np.ndarray:
    return values[0] if len(values) == 1 else np.concatenate(values)


def _line(error: BaseException) -> str:
    """The error in words, with its type if it was unforeseen."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:500]
    return line if isinstance(error, SonewError) else f"{type(error).__name__}: {line}".removesuffix(": ")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
