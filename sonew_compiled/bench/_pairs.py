"""Two functions timed in turns, so that a disturbance of the machine affects both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The times of two functions, measured in the order A B B A A B ...

    Attributes:
      a: the seconds of the first function, one number for each pair.
      b: the seconds of the second function, likewise.
    """

    a: tuple[float, ...]
    b: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median of A over the median of B."""
        return statistics.median(self.a) / statistics.median(self.b)

    @property
    def each(self) -> list[float]:
        """A over B for each pair."""
        return [a / b for a, b in zip(self.a, self.b, strict=True)]

    def described(self) -> dict[str, Any]:
        """The measurement as the tables of speed and of workers have it."""
        return {
            "ratio": self.ratio,
            "a_seconds": statistics.median(self.a),
            "b_seconds": statistics.median(self.b),
            "per_pair": self.each,
        }


def timed(call: Callable[[], object]) -> float:
    """The seconds of one call, which must wait for its result. A call that returns a float gives its own seconds."""
    started = time.perf_counter()
    own = call()
    return own if isinstance(own, float) else time.perf_counter() - started


def measure_pairs(a: Callable[[], object], b: Callable[[], object], count: int, *, warm_up: int = WARM_UP) -> Pairs:
    """Times both functions `count` times, after `warm_up` calls each that do not count.

    Args:
      a: the first function; a call must wait for its result.
      b: the second function, likewise.
      count: the number of pairs, 1 or more.
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
