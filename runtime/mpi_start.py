"""Starting and ending MPI, and an end of this worker if the others do not come.

While MPI waits for the other workers it holds Python's lock, so that neither threads nor signal handlers of Python run.
So a process of its own watches. If a worker ends, MPI's launcher ends the others, but with fault tolerance it does not,
and they would wait without end, at the start and at the end.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mpi4py

from sonew_compiled.mpi_environment import (
    LOCAL_SIZE,
    is_fault_tolerant,
    rank_started,
    workers_of_host,
    workers_started,
)

# MPI is started below, and not as soon as it is imported.
mpi4py.rc.initialize = False
mpi4py.rc.finalize = True
from mpi4py import MPI as MPI  # noqa: E402

# The seconds within which all workers must start. Worker 0 is the first to say that they have not.
_START = 60.0
_LATER = 10.0
# The seconds in which a launcher without fault tolerance ends this worker after another of its machine.
_MISSING = 2.0
# The seconds in which a worker that has left MPI ends after another of its machine.
_LEAVING = 5.0
# The seconds in which it ends in any case: a worker of another machine may have been killed.
_LEAVING_ALL = 60.0
_POLL = 0.25
_LOOK = "see whether all have started, and why some have ended"


def start_mpi() -> None:
    """Starts MPI, or ends the process with exit code 1 if the other workers do not come."""
    if MPI.Is_initialized():
        return
    worker = os.getpid()
    watched, connected = os.pipe()
    with _ended_by_hangup():
        watcher = os.fork()
        if watcher == 0:
            os.close(connected)
            _watch(watched, worker)
            os._exit(0)
        os.close(watched)
        MPI.Init_thread(MPI.THREAD_FUNNELED)
        os.close(connected)
        os.waitpid(watcher, 0)


@contextmanager
def _ended_by_hangup() -> Iterator[None]:
    """A context in which SIGHUP ends the process with exit code 1, by a handler that is not of Python.

    Under fault tolerance a job whose last workers are ended by signals has exit code 0.
    """
    before = signal.getsignal(signal.SIGHUP)
    _end_by_hangup()
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL if before is None else before)


def _end_by_hangup() -> None:
    library = ctypes.CDLL(None)
    # The handler's argument, the number of the signal, becomes the exit code.
    library.signal(ctypes.c_int(signal.SIGHUP), ctypes.cast(library._exit, ctypes.c_void_p))


def prepare_end() -> None:
    """Has this worker end, once all work is done, if another one is killed before all have left MPI."""
    if not is_fault_tolerant():
        return
    worker = os.getpid()
    watched, ending = os.pipe()
    # Python forks no more while it ends.
    if os.fork() == 0:
        os.close(ending)
        _watch_end(watched, worker)
        os._exit(0)
    os.close(watched)
    atexit.register(_begin_end, ending)


def _begin_end(ending: int) -> None:
    _end_by_hangup()
    os.write(ending, b"e")


def _watch_end(watched: int, worker: int) -> None:
    """Ends a worker that has begun to end, and does not, some seconds after another one of its machine, or at last."""
    if not os.read(watched, 1):
        return
    since = begun = time.monotonic()
    while not select.select([watched], [], [], _POLL)[0]:
        alive = _workers_beside(worker)
        now = time.monotonic()
        if not alive or len(alive) >= workers_of_host():
            since = now
        if now > min(since + _LEAVING, begun + _LEAVING_ALL):
            is_first = not alive or alive[0] == _started_by_launcher(worker)
            _end(worker, "a worker was killed after all work was done, before all had left MPI" if is_first else "")
            return


def _watch(watched: int, worker: int) -> None:
    """Ends a worker that neither closes its end of a pipe in time nor has ended."""
    limit = time.monotonic() + (_START if rank_started() == 0 else _START + _LATER)
    missing: tuple[float, bool] | None = None
    while not select.select([watched], [], [], _POLL)[0]:
        now, alive, started = time.monotonic(), _workers_beside(worker), workers_of_host()
        if now > limit:
            _end(worker, f"MPI has not connected {workers_started()} workers within {_START:g} s: {_LOOK}")
            return
        if not alive or len(alive) >= started:
            missing = None
        elif missing is None:
            # The first of those that are left speaks, and is the first to end.
            is_first = alive[0] == _started_by_launcher(worker)
            missing = now + (_MISSING if is_first else 2 * _MISSING), is_first
        elif now > missing[0]:
            why = f"{len(alive)} of {started} workers on this machine are left before MPI has connected them"
            _end(worker, f"{why}: {_LOOK}" if missing[1] else "")
            return


def _end(worker: int, why: str = "") -> None:
    if why:
        sys.stderr.write(f"sonew: {why}\n")
        sys.stderr.flush()
    os.kill(worker, signal.SIGHUP)


def _workers_beside(worker: int) -> list[int]:
    """The processes of the workers that the same launcher has started here, in order; none if they cannot be seen."""
    try:
        launcher = _parent(_started_by_launcher(worker))
        lists = [path.read_text() for path in Path(f"/proc/{launcher}/task").glob("*/children")]
        return sorted(pid for pid in map(int, " ".join(lists).split()) if _is_worker(pid))
    except (OSError, ValueError):
        return []


def _started_by_launcher(worker: int) -> int:
    """The worker's process, or that of the script that the launcher runs in its place."""
    while _is_worker(_parent(worker)):
        worker = _parent(worker)
    return worker


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _is_worker(pid: int) -> bool:
    try:
        return f"{LOCAL_SIZE}=".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
