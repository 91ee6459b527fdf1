"""Processes that end with us."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO


def run_to_end(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path | None = None,
    output: IO[bytes] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Runs a command; an exception meanwhile, such as Ctrl-C, ends it and all that it has started.

    `subprocess.run` goes on without having waited for what it killed on Ctrl-C.

    Args:
      command: what to run.
      environment: its environment variables.
      folder: its working directory, by default this process's.
      output: where its stdout and stderr go, by default the result's.

    Raises:
      OSError: it cannot be started.
    """
    stream = subprocess.PIPE if output is None else output
    with subprocess.Popen(
        command, stdout=stream, stderr=stream, cwd=folder, env=environment, start_new_session=True
    ) as process:
        try:
            said, complained = process.communicate()
        except BaseException:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            raise
    return subprocess.CompletedProcess(command, process.returncode, said, complained)
