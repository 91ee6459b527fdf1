"""Two things timed in turns, so that what disturbs the machine disturbs both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Times of two things, measured A B B A A B ...

    Attributes:
      a: seconds of the first thing, one a pair.
      b: seconds of the second thing.
    """

    a: tuple[float, ...]
    b: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median of A over median of B."""
        return statistics.median(self.a) / statistics.median(self.b)

    @property
    def each(self) -> list[float]:
        """A over B of every pair."""
        return [a / b for a, b in zip(self.a, self.b, strict=True)]


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call, which must wait for its result; what it says itself if it returns a float."""
    started = time.perf_counter()
    own = call()
    return own if isinstance(own, float) else time.perf_counter() - started


def measure_pairs(a: Callable[[], object], b: Callable[[], object], count: int, *, warm_up: int = WARM_UP) -> Pairs:
    """Times both `count` times, after `warm_up` calls each that do not count.

    Args:
      a: the first thing; a call must wait for its result.
      b: the second thing.
      count: of pairs, 1 or more.
      warm_up: calls before the first pair.
    """
    assert count >= 1
    for _ in range(warm_up):
        a()
        b()
    first: list[float] = []
    second: list[float] = []
    for index in range(count):
        if index % 2:
            second.append(timed(b))
            first.append(timed(a))
        else:
            first.append(timed(a))
            second.append(timed(b))
    return Pairs(a=tuple(first), b=tuple(second))
