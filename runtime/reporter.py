"""The progress of a run for people, on stderr: a progress bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from sonew_compiled.errors import measured
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

    def checkpoint(self, path: Path, *, step: int) -> None:
        """A checkpoint is written."""

    def say(self, line: str) -> None:
        """Any other line for the user."""


class Callbacks(Reporter):
    """Hands what happens on to a reporter and to a user's functions."""

    def __init__(
        self,
        shown: Reporter,
        *,
        on_step: Callable[[int, float], object] | None = None,
        on_epoch: Callable[[EpochMetrics], object] | None = None,
        on_checkpoint: Callable[[Path, int], object] | None = None,
    ) -> None:
        self._shown = shown
        self._on_step, self._on_epoch, self._on_checkpoint = on_step, on_epoch, on_checkpoint

    def __enter__(self) -> Self:
        self._shown.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._shown.__exit__(kind, error, tb)

    def begin(self, *, step: int, steps: int, epochs: int, steps_per_epoch: int, batch_size: int) -> None:
        """Hands the beginning on."""
        self._shown.begin(step=step, steps=steps, epochs=epochs, steps_per_epoch=steps_per_epoch, batch_size=batch_size)

    def say(self, line: str) -> None:
        """Hands the line on."""
        self._shown.say(line)

    def step(self, *, step: int, loss: float) -> None:
        """Hands the step on."""
        self._shown.step(step=step, loss=loss)
        if self._on_step is not None:
            self._on_step(step, loss)

    def epoch(self, metrics: EpochMetrics) -> None:
        """Hands the epoch on."""
        self._shown.epoch(metrics)
        if self._on_epoch is not None:
            self._on_epoch(metrics)

    def checkpoint(self, path: Path, *, step: int) -> None:
        """Hands the checkpoint on."""
        self._shown.checkpoint(path, step=step)
        if self._on_checkpoint is not None:
            self._on_checkpoint(path, step)


def epoch_line(metrics: EpochMetrics, *, epochs: int, unit: str) -> str:
    """An epoch in one line: `epoch 3/20  step 30  loss 0.3333 nats  test 0.3512  accuracy 0.91  lr ...`."""
    parts = [f"epoch {metrics.epoch}/{epochs}", f"step {metrics.step}"]
    parts.append(f"loss {measured(metrics.loss)}" + (f" {unit}" if unit else ""))
    if metrics.test_loss is not None:
        parts.append(f"test {measured(metrics.test_loss)}")
    parts += [f"{name} {measured(value)}" for name, value in metrics.test_metrics.items()]
    parts += [f"lr {metrics.learning_rate:.3g}", f"{metrics.examples_per_second:,.0f} examples/s"]
    return "  ".join(parts)


class LineReporter(Reporter):
    """A line for every epoch, for logs and pipes."""

    def __init__(self, stream: TextIO, unit: str = "") -> None:
        self._stream = stream
        self._unit = unit
        self._epochs = 0

    def begin(self, *, step: int, steps: int, epochs: int, steps_per_epoch: int, batch_size: int) -> None:
        """Notes the number of epochs."""
        self._epochs = epochs

    def epoch(self, metrics: EpochMetrics) -> None:
        """Writes the epoch's line."""
        self.say(epoch_line(metrics, epochs=self._epochs, unit=self._unit))

    def say(self, line: str) -> None:
        """Writes the line; if the reader is gone, training goes on."""
        say(line, self._stream)


class ProgressReporter(Reporter):
    """A line for every epoch above a bar with the loss, examples per second and the time left, for a terminal."""

    def __init__(self, stream: TextIO, unit: str = "") -> None:
        # Imported here, because rich takes longer to import than all of the runtime's own modules.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress: Progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]} examples/s"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(file=stream),
            refresh_per_second=4,
        )
        self._task: TaskID | None = None
        self._epochs = self._steps_per_epoch = self._batch_size = 1
        self._unit = unit

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

    def epoch(self, metrics: EpochMetrics) -> None:
        """Writes the epoch's line above the bar."""
        self.say(epoch_line(metrics, epochs=self._epochs, unit=self._unit))

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


def make_reporter(stream: TextIO | None = None, *, unit: str = "") -> Reporter:
    """A line for every epoch on `stream`, over a progress bar if it is a terminal.

    Args:
      stream: the stream; by default stderr.
      unit: the unit of the loss, `Manifest.unit`; may be empty.
    """
    stream = sys.stderr if stream is None else stream
    return ProgressReporter(stream, unit) if stream.isatty() else LineReporter(stream, unit)
