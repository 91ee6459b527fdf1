"""The stages of compiling, for people: a line for each, and on a terminal a spinner with the elapsed time."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sonew_compiled.cli._options import say
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

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            if kind is None:
                self._done()
            self._bar.stop()

    def __call__(self, stage: str) -> None:
        """Says that a stage begins; on a terminal also how long the one before took."""
        if self._bar is None:
            say(stage)
            return
        self._done()
        self._stage, self._started = on_one_line(stage), time.perf_counter()
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(self._stage, total=None)

    def _done(self) -> None:
        if self._bar is not None and self._stage:
            seconds = time.perf_counter() - self._started
            line = f"{self._stage}: {seconds:.1f} s"
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            self._stage = ""
