"""The distance between two processors: the time that they need to answer each other.

If two processors share no cache, a write by one reaches the other several times as late. Kernels that go over the same
memory one after the other, each part on whichever processor is free, then wait for it. A virtual machine does not tell
which of its processors share a cache, and its host may move them.
"""

from __future__ import annotations

import mmap
import os
import statistics
import subprocess
import sys
import time

_ROUNDS = 2000
# The number of times that a processor looks for the answer before it gives up, which takes some seconds.
_PATIENCE = 1 << 27


def core_round_trip_ns() -> int | None:
    """The median time of a round trip between the first two processors that this process may run on, in nanoseconds.

    One processor writes, the other answers, and the first sees the answer. The time includes about 250 ns of Python. It
    is None if there are not two processors, or the system does not list them.
    """
    command = [sys.executable, "-m", "sonew_compiled.bench._distance"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return int(said) if said.isdecimal() else None


def _await(line: memoryview, number: int) -> bool:
    left = _PATIENCE
    while line[0] != number:
        left -= 1
        if not left:
            return False
    return True


def _measure() -> int | None:
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        return None
    first, second, *_ = sorted(os.sched_getaffinity(0))
    line = memoryview(mmap.mmap(-1, mmap.PAGESIZE))
    # Even numbers are questions, and the odd numbers after them answers. The memory starts at zero.
    questions = [2 * (index % 100) + 2 for index in range(_ROUNDS)]
    child = os.fork()
    if child == 0:
        os.sched_setaffinity(0, {second})
        for question in questions:
            if not _await(line, question):
                break
            line[0] = question + 1
        os._exit(0)
    os.sched_setaffinity(0, {first})
    times = []
    for question in questions:
        started = time.perf_counter_ns()
        line[0] = question
        if not _await(line, question + 1):
            return None
        times.append(time.perf_counter_ns() - started)
    os.waitpid(child, 0)
    return round(statistics.median(times))


if __name__ == "__main__":
    print(_measure())
