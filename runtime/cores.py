"""The processor's cores, divided among the workers of one machine."""

from __future__ import annotations

import os
from collections.abc import Sequence


def available_cores() -> list[int]:
    """The numbers of the cores that this process may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def share_of(worker: int, allowed: Sequence[Sequence[int]]) -> list[int]:
    """The cores that a worker shall use.

    Args:
      worker: its number among those of the machine.
      allowed: the cores that each of these may use.

    Returns:
      Its own if a launcher has bound the workers to different cores; else its part of the same ones, at least one core.
    """
    cores = list(allowed[worker])
    count = len(allowed)
    if not cores or any(list(other) != cores for other in allowed):
        return cores
    if len(cores) < count:
        return [cores[worker % len(cores)]]
    return cores[len(cores) * worker // count : len(cores) * (worker + 1) // count]


def use_cores(cores: Sequence[int]) -> None:
    """Keeps this process, and the threads that it makes from now on, to these cores; to all that it may if none."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
