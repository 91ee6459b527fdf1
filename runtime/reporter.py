"""The progress of a run for people, on stderr: a progress bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from sonew_compiled.runtime.metrics import EpochMetrics

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Reporter:
    """Receives the progress of a run and shows nothing; subclasses show it. It is a context manager around the run."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def begin(self, *, step: int, steps: int, epochs: int, steps_per_epoch: int, batch_size: int) -> None:
        """Training begins after `step` steps and goes up to `steps`; `epochs` are those of the whole run."""

    def step(self, *, step: int, loss: float) -> None:
        """`step` steps are done; `loss` is the loss of the last batch."""

    def epoch(self, metrics: EpochMetrics) -> None:
        """An epoch is done."""

    def say(self, line: str) -> None:
        """Any other line for the user."""


class LineReporter(Reporter):
    """A line for every epoch, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._epochs = 0

    def begin(self, *, step: int, steps: int, epochs: int, steps_per_epoch: int, batch_size: int) -> None:
        """Notes the number of epochs."""
        self._epochs = epochs

    def epoch(self, metrics: EpochMetrics) -> None:
        """Writes the epoch's line."""
        self.say(
            f"epoch {metrics.epoch}/{self._epochs}  step {metrics.step}  loss {metrics.loss:.4f}  "
            f"lr {metrics.learning_rate:.3g}  {metrics.images_per_second:,.0f} images/s"
        )

    def say(self, line: str) -> None:
        """Writes the line; if the reader is gone, training goes on."""
        say(line, self._stream)


class ProgressReporter(Reporter):
    """A progress bar with the loss, images per second and the time left, for a terminal."""

    def __init__(self, stream: TextIO) -> None:
        # Imported here, because rich takes longer to import than all of the runtime's own modules.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress: Progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]} images/s"),
            TimeRemainingColumn(),
            console=Console(file=stream),
            refresh_per_second=4,
        )
        self._task: TaskID | None = None
        self._epochs = self._steps_per_epoch = self._batch_size = 1

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # the terminal may have been closed
            self._progress.stop()

    def begin(self, *, step: int, steps: int, epochs: int, steps_per_epoch: int, batch_size: int) -> None:
        """Shows the bar."""
        self._epochs, self._steps_per_epoch, self._batch_size = epochs, steps_per_epoch, batch_size
        self._task = self._progress.add_task(
            "train", total=steps, completed=step, epoch=self._epoch_after(step), loss="-", rate="-"
        )

    def step(self, *, step: int, loss: float) -> None:
        """Moves the bar."""
        assert self._task is not None
        steps_per_second = self._progress.tasks[0].speed
        self._progress.update(
            self._task,
            completed=step,
            epoch=self._epoch_after(step),
            loss=f"{loss:.4g}",
            rate=f"{steps_per_second * self._batch_size:,.0f}" if steps_per_second else "-",
        )

    def say(self, line: str) -> None:
        """Writes the line above the bar."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _epoch_after(self, step: int) -> str:
        return f"{min(step // self._steps_per_epoch + 1, self._epochs)}/{self._epochs}"


def say(line: str, stream: TextIO) -> None:
    """Writes a line for people. Once a line cannot be written, the stream goes to the null device."""
    try:
        print(line, file=stream, flush=True)
    except OSError:  # the pipe is closed, or the disk of the log is full
        silence(stream)


def silence(stream: TextIO) -> None:
    """Redirects a stream, with the text that it still holds, to the null device."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def make_reporter(stream: TextIO | None = None) -> Reporter:
    """A progress bar if `stream` (stderr) is a terminal, else a line for every epoch."""
    stream = sys.stderr if stream is None else stream
    return ProgressReporter(stream) if stream.isatty() else LineReporter(stream)
