"""Background calls, for code that no signal interrupts, such as XLA, which may compile for minutes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NoReturn, TypeVar

_Result = TypeVar("_Result")
_NAME = "sonew-background"


def in_background(function: Callable[[], _Result]) -> Future[_Result]:
    """Calls a function in a thread; only the reader of its result waits for it."""
    future: Future[_Result] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, name=_NAME, daemon=True).start()
    return future


def end_process(code: int) -> NoReturn:
    """Ends the process. If a background call is still at work, it ends without Python's shutdown, which would crash."""
    if any(thread.name == _NAME for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)
