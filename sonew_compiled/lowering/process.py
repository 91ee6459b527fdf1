"""Child processes that end together with their parent."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_LOG = logging.getLogger(__name__)


_STOPPING = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}


def run_to_end(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path | None = None,
    output: IO[bytes] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Runs a command; an exception meanwhile, such as Ctrl-C, ends it and all processes that it has started.

    `subprocess.run` would not wait for the processes that it kills on Ctrl-C.

    Args:
      command: the command and its arguments.
      environment: its environment variables.
      folder: its working directory, by default this process's.
      output: the file for its stdout and stderr; by default both are in the result.

    Raises:
      OSError: it cannot be started.
    """
    stream = subprocess.PIPE if output is None else output
    started = time.perf_counter()
    # A signal between the start of the process and the `try` would leave it alone.
    held = _block(_STOPPING)
    try:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, cwd=folder, env=environment, start_new_session=True
        )
    except BaseException:
        _let_through(held)
        raise
    with process:
        try:
            _let_through(held)
            said, complained = process.communicate()
        except BaseException:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            raise
    _LOG.debug("%s: %.1f s", shlex.join(command), time.perf_counter() - started)
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


def _block(signals: set[signal.Signals]) -> set[int | signal.Signals] | None:
    """Puts the signals off in this thread; gives those that were put off before."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, signals) if hasattr(signal, "pthread_sigmask") else None


def _let_through(held: set[int | signal.Signals] | None) -> None:
    """Puts off only these signals; what came meanwhile is handled now."""
    if held is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
