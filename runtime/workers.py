"""The processes that train together: the division of a batch among them, and their agreement.

Every worker takes the same steps, and holds the whole state unless it is divided (`shards.py`). Each works on some of a
batch's micro-batches. If one worker has an error or a wish to stop, all learn of it at the next exchange, which every
worker reaches, since all do the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self, TypeAlias, TypeVar

import numpy as np

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.reduce import Node, total

T = TypeVar("T")
Ranges: TypeAlias = Sequence[tuple[int, int]]
"""Some numbers of a vector: disjoint ranges in order, each by its first index and the one after its last."""
Wait: TypeAlias = Callable[[Callable[[], bool]], None]
"""Calls a function again and again until it returns True."""


# The largest share in an even division, as a multiple of the mean.
_EVEN = 1.25


class AgreedError(SonewError):
    """The error that ends the work of all workers: that of the first worker with one.

    Attributes:
      exit_code: the exit code of the error.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class WorkerLostError(SonewError):
    """The end of some workers that the others have outlived, which MPI's fault tolerance allows.

    Attributes:
      ranks: the numbers of the workers that have ended.
    """

    def __init__(self, ranks: Sequence[int]) -> None:
        which = f"worker {ranks[0]} has" if len(ranks) == 1 else f"workers {', '.join(map(str, ranks))} have"
        super().__init__(f"{which} ended without a word")
        self.ranks = ranks


class Workers(Protocol):
    """The workers from the view of one of them; a context around all of their common work.

    Each worker calls the same methods in the same order. A method that communicates raises an `AgreedError` if a worker
    has failed, and a `WorkerLostError` if one has ended and MPI lets the others live.

    Attributes:
      rank: the number of this worker, from 0; only worker 0 writes files and messages.
      count: the number of workers.
      local_rank: the number of this worker among those of its machine.
    """

    rank: int
    count: int
    local_rank: int

    def __enter__(self) -> Self:
        """Begins."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Tells the others of an error: worker 0 raises the common error, and the others end silently."""

    def meet(self) -> None:
        """Waits for all workers."""

    def stopped(self, wish: bool) -> bool:
        """Whether any worker wished to stop by the last exchange, the same for all. `wish` counts at the next one."""

    def gather(self, value: T) -> list[T]:
        """The values of all workers in order; a value must be small, and must be picklable."""

    def sum(
        self,
        nodes: Sequence[Node[np.ndarray]],
        parts: int,
        *,
        is_rounded: bool = False,
        wanted: Sequence[Ranges] | None = None,
    ) -> np.ndarray:
        """The sum over all micro-batches of a batch.

        Args:
          nodes: the nodes of this worker's micro-batches, from `push`.
          parts: the number of micro-batches in the batch.
          is_rounded: whether each micro-batch's numbers but the first are of bfloat16, which are half as long.
          wanted: for each worker the numbers whose sum it needs; None if all need all.

        Returns:
          The array of the first node, overwritten; what the worker does not need is undefined.
        """

    def spread(self, arrays: Sequence[Sequence[np.ndarray]]) -> None:
        """Gives each worker's arrays to all others.

        Args:
          arrays: for each worker the same number of bytes everywhere; a worker's own are sent, the others overwritten.
        """

    def bring(self, array: np.ndarray, owner: int) -> None:
        """Copies the array of one worker to that of worker 0; for the others nothing changes."""

    def outside(self) -> AbstractContextManager[Wait]:
        """A context for an exchange that does not go through MPI.

        Its value waits for the exchange, and looks whether all workers live. An error within ends all of them.
        """


def shared(parts: int, rank: int, count: int) -> range:
    """The consecutive numbers of a worker's micro-batches; the workers' counts differ by at most one."""
    return range(parts * rank // count, parts * (rank + 1) // count)


def is_even(shares: Sequence[int], whole: int) -> bool:
    """Whether the shares of all workers in some whole are about as large as one another, and add up to about the whole.

    Then each worker can send its share to each other one. Otherwise the largest would take the time of all.
    """
    return max(shares) * len(shares) <= _EVEN * whole


def add(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The sum of two buckets, in the memory of the left one."""
    np.add(left, right, out=left)
    return left


class Alone:
    """The only worker."""

    rank = 0
    count = 1
    local_rank = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def meet(self) -> None:
        """Returns at once, since there are no other workers."""

    def stopped(self, wish: bool) -> bool:
        """The wish of this worker."""
        return wish

    def gather(self, value: T) -> list[T]:
        """The value of this worker."""
        return [value]

    def sum(
        self,
        nodes: Sequence[Node[np.ndarray]],
        parts: int,
        *,
        is_rounded: bool = False,
        wanted: Sequence[Ranges] | None = None,
    ) -> np.ndarray:
        """The sum over the batch."""
        assert sum(node.size for node in nodes) == parts, (nodes, parts)
        return total(nodes, add)

    def spread(self, arrays: Sequence[Sequence[np.ndarray]]) -> None:
        """Changes nothing: all arrays are this worker's."""

    def bring(self, array: np.ndarray, owner: int) -> None:
        """Changes nothing: the array is this worker's."""

    @contextlib.contextmanager
    def outside(self) -> Iterator[Wait]:
        """A context in which there is nobody to look at."""

        def wait(is_done: Callable[[], bool]) -> None:
            while not is_done():
                time.sleep(0)

        yield wait
