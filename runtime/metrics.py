"""`metrics.jsonl`: a line with a JSON object for every epoch of a run, and for its end if the model has metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import replacement
from sonew_compiled.runtime.json_files import read_lines
from sonew_compiled.runtime.schema import anything, integer, number, record
from sonew_compiled.runtime.tensorfile import write_atomically

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """A line of `metrics.jsonl`.

    Attributes:
      step: the training steps done at the end of the epoch.
      epoch: the number of the epoch, from 1.
      loss: the mean over the epoch's batches of the loss before each update.
      learning_rate: the rate of the epoch's last step.
      seconds: the time since this process began to train.
      examples_per_second: the examples per second over the epoch, or over the part of it since the run was resumed.
      test_loss: the loss of the test split at the end of the epoch; None if it was not evaluated, and then not in the
        file.
      test_metrics: the metrics of the test split by name, in the file as `test_NAME`; empty if it was not evaluated.
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float
    seconds: float
    examples_per_second: float
    test_loss: float | None = None
    test_metrics: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, float | None]:
        """The line's object. JSON has neither NaN nor infinities: they are null."""
        values: dict[str, float | None] = {name: getattr(self, name) for name in _OF_EPOCH}
        if self.test_loss is not None:
            values["test_loss"] = self.test_loss
        return _finite(values | by_split({}, self.test_metrics))


_OF_EPOCH = ("step", "epoch", "loss", "learning_rate", "seconds", "examples_per_second")


@dataclass(frozen=True, kw_only=True)
class EndMetrics:
    """The line of a run's end, of a model that has metrics.

    Attributes:
      step: the training steps done.
      train_loss: the loss of the whole training split.
      test_loss: the loss of the test split.
      train_metrics: the metrics of the training split by name, in the file as `train_NAME`.
      test_metrics: the metrics of the test split by name, in the file as `test_NAME`.
    """

    step: int
    train_loss: float
    test_loss: float
    train_metrics: Mapping[str, float]
    test_metrics: Mapping[str, float]

    def to_json(self) -> dict[str, float | None]:
        """The line's object, likewise."""
        values = {"step": self.step, "train_loss": self.train_loss, "test_loss": self.test_loss}
        return _finite(values | by_split(self.train_metrics, self.test_metrics))


def _finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: value if value is None or math.isfinite(value) else None for name, value in values.items()}


def by_split(train: Mapping[str, float], test: Mapping[str, float]) -> dict[str, float]:
    """The metrics of both splits, by names such as `test_accuracy`."""
    splits = {"train": train, "test": test}
    return {f"{split}_{name}": value for split, metrics in splits.items() for name, value in metrics.items()}


LINE = record(
    {"step": integer()},
    {
        "epoch": integer(),
        "loss": number(),
        "learning_rate": number(),
        "seconds": number(0),
        "examples_per_second": number(0),
    },
    anything,
    most=4_000,  # twice as many as a bundle has metrics, and those that other programs add
)
"""The check of a line."""


class MetricsFile:
    """Appends lines to `metrics.jsonl` in a run's directory, each flushed at once."""

    def __init__(self, directory: Path, *, step: int, source: Path, hold: bool = False) -> None:
        """Opens the file in `directory` for a run that continues after `step` steps.

        Args:
          directory: the run's directory.
          step: lines beyond it are dropped.
          source: the directory of the resumed run, whose lines up to `step` are the start of the file.
          hold: whether the old file stays until `release`, together with its checkpoints.

        Raises:
          SonewError: the file cannot be read or written.
        """
        self.path = directory / METRICS_FILE
        if not (step or hold):
            _lines(directory)  # another program's file of this name is not replaced
        # The end's line comes again at the end of this run.
        rows = [row for row in _lines(source) if row["step"] <= step and "train_loss" not in row] if step else []
        kept = [json.dumps(row) + "\n" for row in rows]
        self._held: list[str] | None = kept
        if not hold:
            self.release()

    def release(self, directory: Path | None = None) -> None:
        """Writes the lines so far, if they were held; later lines are added to the run's file.

        Args:
          directory: where to write them, for the caller to move; by default the run's directory, in place of the old
            lines.

        Raises:
          SonewError: the lines cannot be written.
        """
        if self._held is not None:
            path = self.path if directory is None else directory / METRICS_FILE
            write_atomically(path, ["".join(self._held).encode()])
            self._held = None

    def append(self, metrics: EpochMetrics | EndMetrics) -> None:
        """Adds a line.

        Raises:
          SonewError: the line cannot be written.
        """
        line = json.dumps(metrics.to_json()) + "\n"
        if self._held is not None:
            self._held.append(line)
            return
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError as error:
            raise SonewError(f"{self.path} cannot be written ({error.strerror or error}): free space") from None


def read_metrics(directory: str | Path) -> list[dict[str, float]]:
    """The epochs of a run's `metrics.jsonl`; none if there is no file. A last line that was cut off is left out.

    Raises:
      SonewError: the file cannot be read, or holds no metrics.
    """
    return [row for row in _lines(Path(directory)) if "train_loss" not in row]


def _lines(directory: Path) -> list[dict[str, float]]:
    replacement.finish_abandoned(directory)
    remedy = "remove the file, or give another --output"
    lines = read_lines(directory / METRICS_FILE, LINE, what="a line of metrics", remedy=remedy)
    return [{key: value for key, value in line.items() if _is_kept(key, value)} for line in lines]


def _is_kept(key: str, value: object) -> bool:
    """Whether a run writes this field; fields that other programs add to a line are left out."""
    is_number = value is None or isinstance(value, int | float)
    return key in _OF_EPOCH or (key.startswith(("train_", "test_")) and is_number)
