"""Calls that go on beside others, in code that no signal interrupts: XLA compiles for minutes."""

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
    """Calls a function in a thread that nothing waits for but the reader of its result."""
    future: Future[_Result] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, name=_NAME, daemon=True).start()
    return future


def end_process(code: int) -> NoReturn:
    """Ends the process, at once if such a call is still at work: to take Python down around it ends in a crash."""
    if any(thread.name == _NAME for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)
