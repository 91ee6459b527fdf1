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
from typing import NamedTuple, NoReturn, Self, TypeVar

import numpy as np

from sonew_compiled.errors import SonewError
from sonew_compiled.mpi_environment import is_fault_tolerant
from sonew_compiled.runtime.cores import available_cores, share_of, use_cores
from sonew_compiled.runtime.interruption import Interrupted
from sonew_compiled.runtime.mpi_start import MPI, prepare_end, start_mpi
from sonew_compiled.runtime.mpi_sums import NUMBERS, MpiSums, finish
from sonew_compiled.runtime.reduce import Node
from sonew_compiled.runtime.workers import AgreedError, Ranges, Wait, WorkerLostError, is_even

T = TypeVar("T")

_GO_ON, _STOP, _FAILED = range(3)
# The tag of votes, and one that no message has.
_VOTES, _NEVER = 1, 2
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
        self._sums = MpiSums(self._comm)
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

    def sum(
        self,
        nodes: Sequence[Node[np.ndarray]],
        parts: int,
        *,
        is_rounded: bool = False,
        wanted: Sequence[Ranges] | None = None,
    ) -> np.ndarray:
        """The sum over the batch."""
        self.meet()
        with self._exchange():
            return self._sums.sum(nodes, parts, is_rounded=is_rounded, wanted=wanted)

    def spread(self, arrays: Sequence[Sequence[np.ndarray]]) -> None:
        """Gives each worker's arrays to all others."""
        self.meet()
        contents = [[array.reshape(-1).view(np.uint8) for array in each] for each in arrays]
        others = [rank for rank in range(self.count) if rank != self.rank]
        sizes = [sum(content.nbytes for content in each) for each in contents]
        with self._exchange():
            if not is_even(sizes, sum(sizes)):
                vector = np.concatenate(list(itertools.chain(*contents)))
                self._comm.Allgatherv(MPI.IN_PLACE, [vector, sizes])
                place = iter(np.split(vector, np.cumsum([content.nbytes for each in contents for content in each])))
                for content in itertools.chain(*contents):
                    np.copyto(content, next(place))
                return
            requests = [self._comm.Irecv(content, rank, NUMBERS) for rank in others for content in contents[rank]]
            requests += [self._comm.Isend(content, rank, NUMBERS) for rank in others for content in contents[self.rank]]
            finish(requests)

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
        except MPI.Exception:
            # The end of a worker in the middle of a message can be an error of any class.
            if not is_fault_tolerant():
                raise
            # The others may be in an exchange that the lost worker has finished.
            for comm in (self._comm, *others):
                comm.Revoke()
            self._survivors = self._comm.Shrink()
            lost = self._comm.Get_failed()
            if not lost.Get_size():
                raise
            ranks = MPI.Group.Translate_ranks(lost, list(range(lost.Get_size())), self._comm.Get_group())
            raise WorkerLostError(sorted(ranks)) from None
        self._is_inside = False

    def _end(self, error: BaseException) -> NoReturn:
        """Ends this survivor; the others live until the first of them has saved what it can."""
        assert self._survivors is not None
        if self._survivors.Get_rank() == 0:
            _say(f"sonew: {_line(error)}")
        with contextlib.suppress(MPI.Exception):
            self._survivors.Barrier()
        # MPI's own end waits for the lost worker.
        os._exit(1)

    def _abort(self, error: BaseException) -> NoReturn:
        """Ends all workers from within an exchange, in which they can no longer agree."""
        _say(f"sonew: worker {self.rank} on {socket.gethostname()}: {_line(error)}")
        if is_fault_tolerant():
            # After an MPI_Abort of the only survivor the launcher returns 0. The others notice the end of this worker.
            os._exit(1)
        self._comm.Abort(1)
        raise AssertionError("MPI_Abort does not return")


def _wait_for(is_done: Callable[[], bool]) -> None:
    """Waits for a worker that may have more to do."""
    until = time.perf_counter() + _EAGER
    while not is_done():
        if time.perf_counter() > until:
            time.sleep(_NAP)


def _line(error: BaseException) -> str:
    """The error in words, with its type if it was unforeseen."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:500]
    return line if isinstance(error, SonewError) else f"{type(error).__name__}: {line}".removesuffix(": ")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
