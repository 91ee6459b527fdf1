"""The processes that train together: what one of them does of a batch, and how they agree.

Every worker holds the whole state and takes the same steps; of a batch each works on some of the micro-batches. What
one worker alone finds out, such as an error or a wish to stop, becomes known to all at the next exchange, which every
worker comes to, since all do the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.reduce import Node, total

T = TypeVar("T")


class AgreedError(SonewError):
    """What ended the work of all workers: the error of the first that has one.

    Attributes:
      exit_code: that of the error.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Workers(Protocol):
    """The workers as one of them sees them; a context around all that they do together.

    Each worker calls the same methods in the same order. Any of them that speaks to the others raises an `AgreedError`
    if one has failed.

    Attributes:
      rank: the number of this one, from 0 on; worker 0 alone writes files and speaks.
      count: how many there are.
      local_rank: the number among those of this machine.
    """

    rank: int
    count: int
    local_rank: int

    def __enter__(self) -> Self:
        """Begins."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Tells the others of an error: worker 0 raises what all end by, the others end silently."""

    def meet(self) -> None:
        """Waits for all."""

    def stopped(self, wish: bool) -> bool:
        """Whether any worker wished to stop by the last exchange: the same for all. `wish` counts at the next one."""

    def gather(self, value: T) -> list[T]:
        """A value of each worker, in their order; small ones, that can be pickled."""

    def sum(self, nodes: Sequence[Node[np.ndarray]], parts: int) -> np.ndarray:
        """The sum over all micro-batches of a batch.

        Args:
          nodes: of the micro-batches of this worker, as `push` leaves them.
          parts: how many micro-batches there are.

        Returns:
          The array of the first node, overwritten.
        """


def shared(parts: int, rank: int, count: int) -> range:
    """The numbers of the micro-batches that a worker takes, in a row; workers' counts differ by one at most."""
    return range(parts * rank // count, parts * (rank + 1) // count)


def add(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The sum of two buckets, in the memory of the left one."""
    np.add(left, right, out=left)
    return left


class Alone:
    """One worker, of one."""

    rank = 0
    count = 1
    local_rank = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def meet(self) -> None:
        """There is nobody to wait for."""

    def stopped(self, wish: bool) -> bool:
        """What this worker wishes."""
        return wish

    def gather(self, value: T) -> list[T]:
        """The value of this worker."""
        return [value]

    def sum(self, nodes: Sequence[Node[np.ndarray]], parts: int) -> np.ndarray:
        """The sum over the batch."""
        assert sum(node.size for node in nodes) == parts, (nodes, parts)
        return total(nodes, add)


def check_alike(workers: Workers, facts: Mapping[str, Any], *, remedy: str = "give all workers the same") -> None:
    """Sees that all workers do the same work.

    Args:
      workers: each of whom calls this.
      facts: what must be the same, by what it is called.
      remedy: what to do, for the error.

    Raises:
      UsageError: a worker's differ; the message names it and what differs.
    """
    found = workers.gather({what: str(value) for what, value in facts.items()})
    for rank, other in enumerate(found):
        for what in facts:
            if other[what] != found[0][what]:
                raise UsageError(
                    f"worker {rank} has {what} {other[what][:60]}, worker 0 has {found[0][what][:60]}: {remedy}"
                )
