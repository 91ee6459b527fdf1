"""The processor's cores, divided among the workers of one machine."""

from __future__ import annotations

import os
from collections.abc import Sequence


def available_cores() -> list[int]:
    """The numbers of the cores that this process may use; none if the system does not list them."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def share_of(worker: int, allowed: Sequence[Sequence[int]]) -> list[int]:
    """The cores for a worker.

    Args:
      worker: its number among the workers of the machine.
      allowed: for each of these workers, the cores that it may use.

    Returns:
      The worker's own cores if a launcher has bound the workers to different ones; else its part of the shared cores,
      at least one.
    """
    cores = list(allowed[worker])
    count = len(allowed)
    if not cores or any(list(other) != cores for other in allowed):
        return cores
    if len(cores) < count:
        return [cores[worker % len(cores)]]
    return cores[len(cores) * worker // count : len(cores) * (worker + 1) // count]


def use_cores(cores: Sequence[int]) -> None:
    """Binds this process, and the threads that it starts from now on, to these cores; none stands for all."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
