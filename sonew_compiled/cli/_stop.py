"""Ctrl-C and termination as an exception that unwinds a command, whatever the command is at."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sonew_compiled.mpi_environment import workers_started

# Seconds for which an import may put off that a command is stopped, and between two looks whether it has ended.
_LONGEST_IMPORT = 10.0
_PAUSE = 0.02


@contextmanager
def signals_unwind() -> Iterator[None]:
    """Makes SIGINT, SIGTERM and SIGHUP raise `KeyboardInterrupt`: compilers end with us, their folders are removed.

    A SIGHUP that is ignored, as under `nohup`, stays ignored. Workers that MPI has started compile nothing, and their
    launcher ends them by SIGTERM after it has said why.
    """
    previous: dict[signal.Signals, Any] = {}
    handler = _Handler()
    hook = sys.unraisablehook

    def handle(number: signal.Signals) -> None:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            previous[number] = signal.signal(number, handler)

    def not_lost(unraisable: sys.UnraisableHookArgs) -> None:
        """An exception is ignored in some callbacks, such as XLA's of the garbage collection."""
        if previous and issubclass(unraisable.exc_type, KeyboardInterrupt):
            handler.once_more(signal.SIGINT)
        else:
            hook(unraisable)

    try:
        if threading.current_thread() is threading.main_thread():
            handle(signal.SIGINT)
            for name in ("SIGTERM", "SIGHUP") if workers_started() <= 1 else ():
                if hasattr(signal, name):  # Windows has no SIGHUP
                    handle(getattr(signal, name))
            sys.unraisablehook = not_lost
        yield
    finally:
        sys.unraisablehook = hook
        for number, before in previous.items():
            signal.signal(number, before)


class _Handler:
    """Raises `KeyboardInterrupt`, but within an import only when that has ended.

    NumPy's import makes another error of it, and prints a traceback.
    """

    def __init__(self) -> None:
        self._first: float | None = None
        self._waits = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._waits:
            return
        now = time.monotonic()
        self._first = now if self._first is None else self._first
        if not _is_importing(frame) or now - self._first > _LONGEST_IMPORT:
            self._first = None
            raise KeyboardInterrupt
        self.once_more(number)

    def once_more(self, number: int) -> None:
        """Sends the signal again after a pause."""
        self._waits = True
        timer = threading.Timer(_PAUSE, self._send, (number,))
        timer.daemon = True
        timer.start()

    def _send(self, number: int) -> None:
        self._waits = False
        # A signal to the main thread also ends its system call.
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
