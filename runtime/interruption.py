"""Ctrl-C and termination as a flag that is read between steps."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from sonew_compiled.errors import SonewError

# Windows has no such signal.
_HANGUP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
_SENT_ON = (signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()


class Interrupted(SonewError):  # noqa: N818 - it is no error
    """The user stopped the work; the message says how to resume."""

    exit_code = 130  # as shells have it of a program that Ctrl-C ends


class Interruption:
    """A context in which the first SIGINT, SIGTERM or SIGHUP sets `requested`, and a second one ends the process.

    A SIGHUP that is ignored, as under `nohup`, stays ignored. Outside the main thread, where Python allows no handlers,
    the context does nothing. With `sent_on`, SIGUSR1 sets `requested` too: MPI's launchers pass it on to all workers,
    while the other signals make them end the workers. The first signal writes `notice`, a line, to stderr at once,
    on a terminal below the progress bar.
    """

    def __init__(self, *, sent_on: bool = False, notice: str = "") -> None:
        self.requested = False
        self._notice = notice
        self._numbers = (signal.SIGINT, signal.SIGTERM, *_HANGUP, *(_SENT_ON if sent_on else ()))
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                if number not in _HANGUP or signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        if self._notice:
            # A handler may run inside a write to `sys.stderr`, which must not be entered again.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                start = "\n" if sys.stderr.isatty() else ""
                os.write(sys.stderr.fileno(), f"{start}{self._notice}\n".encode())

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was not set from Python, and that Python cannot restore.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()
