"""What people see of a run while it goes: a progress bar on a terminal, lines elsewhere. All on stderr."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from sonew_compiled.runtime.metrics import EpochMetrics

if TYPE_CHECKING:
    from rich.progress import Progress


class Reporter(Protocol):
    """Is told how a run goes; a context manager around it."""

    def __enter__(self) -> Self:
        """Begins to show progress."""
        ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Leaves the terminal as it was."""
        ...

    def begin(self, *, step: int, steps: int, batch_size: int) -> None:
        """Training goes on from `step` of `steps`."""
        ...

    def step(self, *, step: int, loss: float) -> None:
        """`step` steps are done; `loss` is that of the last batch."""
        ...

    def epoch(self, metrics: EpochMetrics, *, epochs: int) -> None:
        """An epoch of `epochs` is done."""
        ...

    def say(self, line: str) -> None:
        """Anything else worth a line."""
        ...


class SilentReporter:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def begin(self, *, step: int, steps: int, batch_size: int) -> None:
        """Shows nothing."""

    def step(self, *, step: int, loss: float) -> None:
        """Shows nothing."""

    def epoch(self, metrics: EpochMetrics, *, epochs: int) -> None:
        """Shows nothing."""

    def say(self, line: str) -> None:
        """Shows nothing."""


class LineReporter(SilentReporter):
    """A line for every epoch, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def epoch(self, metrics: EpochMetrics, *, epochs: int) -> None:
        """Writes the epoch's line."""
        self.say(epoch_line(metrics, epochs))

    def say(self, line: str) -> None:
        """Writes the line."""
        print(line, file=self._stream, flush=True)


class ProgressReporter(SilentReporter):
    """A progress bar with the loss, images per second and the time left, for a terminal."""

    def __init__(self, stream: TextIO) -> None:
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
        self._task: Any = None
        self._batch_size = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, *, step: int, steps: int, batch_size: int) -> None:
        """Shows the bar."""
        self._batch_size = batch_size
        self._task = self._progress.add_task("train", total=steps, completed=step, epoch="1", loss="-", rate="-")

    def step(self, *, step: int, loss: float) -> None:
        """Moves the bar."""
        speed = self._progress.tasks[0].speed
        rate = f"{speed * self._batch_size:,.0f}" if speed else "-"
        self._progress.update(self._task, completed=step, loss=f"{loss:.4g}", rate=rate)

    def epoch(self, metrics: EpochMetrics, *, epochs: int) -> None:
        """Counts the epoch."""
        self._progress.update(self._task, epoch=f"{min(metrics.epoch + 1, epochs)}/{epochs}")

    def say(self, line: str) -> None:
        """Writes the line above the bar."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)


def epoch_line(metrics: EpochMetrics, epochs: int) -> str:
    """An epoch in one line."""
    return (
        f"epoch {metrics.epoch}/{epochs}  step {metrics.step}  loss {metrics.loss:.4f}  "
        f"lr {metrics.learning_rate:.3g}  {metrics.images_per_second:,.0f} images/s"
    )


def make_reporter(stream: TextIO | None = None) -> Reporter:
    """A progress bar if `stream` (stderr) is a terminal, else a line for every epoch."""
    stream = sys.stderr if stream is None else stream
    return ProgressReporter(stream) if stream.isatty() else LineReporter(stream)
