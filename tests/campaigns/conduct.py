"""The conduct of a campaign: its seeds, and the ways in which a command may end."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The most characters of a line for the user.
_LONGEST_LINE = 1_000

# Bytes of memory that a command may take beside what a process has that has loaded what a command needs.
_MOST_MEMORY = 800 << 20

PATIENCE = 10.0 * float(os.environ.get("SONEW_CAMPAIGN_PATIENCE", "3"))
"""The seconds that a command may take: ten on an idle machine."""


def seeds(short: int) -> list[int]:
    """The seeds of a campaign from `SONEW_CAMPAIGN_SEED` on: `short` in the gate, times `SONEW_CAMPAIGN` by hand."""
    first = int(os.environ.get("SONEW_CAMPAIGN_SEED", "0"))
    return list(range(first, first + short * int(os.environ.get("SONEW_CAMPAIGN", "1"))))


def check_end(code: int, err: str, what: str) -> None:
    """Asserts that a command succeeded or refused on one clear line."""
    lines = [line for line in err.splitlines() if line.startswith("sonew")]
    assert code in (0, 1, 2, 130), f"{what} ended with {code}: {err[-2000:]}"
    assert len(lines) == (code != 0), f"{what} says {err[-2000:]}"
    assert "unexpected" not in err, f"{what} says {err[-2000:]}"
    assert "Traceback" not in err, f"{what} says {err[-2000:]}"
    assert all(line.isprintable() and len(line) <= _LONGEST_LINE for line in err.splitlines()), f"{what} says {err!r}"


def in_memory(name: str) -> int:
    """Bytes of this process in memory: `VmRSS` now, `VmHWM` at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (size,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(size) << 10


@contextmanager
def within_limits(what: str) -> Iterator[None]:
    """Asserts that what is done takes ten seconds and less than 1 GB, here and in processes that it starts."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets how much it was at most
    before, started = in_memory("VmRSS"), time.perf_counter()
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    yield
    seconds = time.perf_counter() - started
    assert seconds < PATIENCE, f"{what} took {seconds:.1f} s"
    peak = in_memory("VmHWM")
    assert peak - before < _MOST_MEMORY, f"{what} took {peak - before:,} bytes"
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # Until it runs its program, a new process counts this one's memory, which the tests before have filled, as its own.
    is_small = most << 10 < _MOST_MEMORY + (200 << 20) or most << 10 <= peak
    assert most == children or is_small, f"{what} started a process of {most:,} KiB"
