"""How far apart two processors are, in the time that they need to answer each other.

Where two processors have no cache in common, what one has written reaches the other several times as late, and kernels
that go over the same memory one after the other, each part by whichever processor is free, wait for it. Virtual
machines do not say which of theirs have, and their hosts move them.
"""

from __future__ import annotations

import mmap
import os
import statistics
import subprocess
import sys
import time

_ROUNDS = 2000
# How often a processor looks for the answer until it gives up: some seconds.
_PATIENCE = 1 << 27


def core_round_trip_ns() -> int | None:
    """Nanoseconds until one processor sees that another has seen what it wrote, the median of many times.

    Python's own time is in it, about 250 ns. It is of the first two processors that this process may run on, and None
    where there are not two or the system does not tell.
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
    # Even numbers are questions, the odd ones after them answers; zero is what the memory begins with.
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
