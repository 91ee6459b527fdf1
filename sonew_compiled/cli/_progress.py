"""The stages of compiling, for people: a line for each, and on a terminal a spinner with the elapsed time."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sonew_compiled.cli._say import is_quiet, is_verbose, note
from sonew_compiled.errors import on_one_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Stages:
    """A context in which to say the stage at work; each is called with its line."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._started = 0.0
        self._shows_times = False

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not is_quiet():
            from rich.console import Console
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
        self._shows_times = self._bar is not None or is_verbose()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self._done()
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str) -> None:
        """Says that a stage begins; on a terminal, or if more is to be said, also how long the one before took."""
        self._done()
        self._stage, self._started = on_one_line(stage), time.perf_counter()
        if self._bar is None:
            note(stage)
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(self._stage, total=None)

    def _done(self) -> None:
        if not self._stage or not self._shows_times:
            return
        line = f"{self._stage}: {time.perf_counter() - self._started:.1f} s"
        if self._bar is None:
            note(line)
        else:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._stage = ""
