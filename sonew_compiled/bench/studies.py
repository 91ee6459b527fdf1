"""Studies of `sonew tune` that are read back: from their folders, from `best.json`, or from such objects a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonew_compiled.bench._row_format import STEP
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.presets import SETTINGS, Value
from sonew_compiled.runtime.json_files import parse, read_content, read_lines
from sonew_compiled.runtime.schema import (
    SCALAR,
    Unfit,
    integer,
    listed,
    mapped,
    nullable,
    number,
    path_text,
    record,
    text,
)

BEST_FILE = "best.json"

MOST_TRIALS = 10_000
"""The trials of a study that is read."""
_TRIAL = record(
    {"train_loss": nullable(number()), "epochs": integer()},
    {"trial": integer(), "test_loss": nullable(number()), "epoch_loss": nullable(number()), "ended": text(20)},
    others=SCALAR,
)
_STUDY = record(
    {
        "optimizer": text(100),
        "model": text(1000),
        "precision": text(100),
        "epochs": integer(1),
        "best": nullable(mapped(SCALAR, 100)),
        "each": listed(_TRIAL, MOST_TRIALS),
    },
    {
        **STEP,
        "epochs_spent": integer(),
        "settings": mapped(SCALAR, 100),
        "data": path_text(),
        "command": nullable(path_text(10_000)),
    },
    others=SCALAR,
)
# Fields of a trial that are no settings of it.
_RESULTS = ("trial", "train_loss", "test_loss", "epoch_loss", "epochs", "ended")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study that was read back.

    Attributes:
      optimizer, model, precision: its settings.
      epochs: the length of a whole training.
      best: the settings of the best trial; None if there is none.
      fixed: settings of the optimizer that all trials share.
      each: the trials in order, as `TuneResult` has them.
      epochs_spent: the epochs of all trials.
    """

    optimizer: str
    model: str
    precision: str
    epochs: int
    best: Mapping[str, Value] | None
    fixed: Mapping[str, Value]
    each: Sequence[Mapping[str, Any]]
    epochs_spent: int

    @property
    def searched(self) -> list[str]:
        """The names of the settings in which trials differ."""
        names = dict.fromkeys(name for trial in self.each for name in trial if name not in _RESULTS)
        return [name for name in names if len({trial.get(name) for trial in self.each}) > 1]

    def best_trials(self, most: int) -> list[Mapping[str, Any]]:
        """The trials that were trained to the end, those with the least training loss first."""
        ended = [trial for trial in self.each if trial["train_loss"] is not None]
        return sorted(ended, key=lambda trial: trial["train_loss"])[:most]


def is_study(path: Path) -> bool:
    """Whether the path is a study's folder, or a file as `read_studies` takes it."""
    return (path / BEST_FILE).is_file() or (path.is_file() and path.suffix in (".json", ".jsonl"))


def read_studies(path: Path) -> list[Study]:
    """The studies of a folder of `sonew tune`, of a `best.json`, or of a file with such objects a line.

    Raises:
      UsageError: there is no such file.
      SonewError: it cannot be read, or holds something else.
    """
    file = path / BEST_FILE if path.is_dir() else path
    if not file.exists():
        raise UsageError(f"{file} does not exist; give a study's folder, its {BEST_FILE}, or a .jsonl file of studies")
    remedy = "give another file"
    if file.suffix == ".jsonl":
        return [_study(each) for each in read_lines(file, _STUDY, what="a study", remedy=remedy)]
    try:
        return [_study(_STUDY(parse(read_content(file)), "it"))]
    except OSError as error:
        raise SonewError(f"{file} cannot be read ({error.strerror}): {remedy}") from None
    except Unfit as error:
        raise SonewError(f"{file} is not the {BEST_FILE} of a study ({error}): {remedy}") from None


def _study(read: Mapping[str, Any]) -> Study:
    each = read["each"]
    return Study(
        optimizer=read["optimizer"],
        model=read["model"],
        precision=read["precision"],
        epochs=read["epochs"],
        best=read["best"],
        fixed={name: read[name] for name in SETTINGS if read.get(name) is not None},
        each=each,
        epochs_spent=read.get("epochs_spent", sum(trial["epochs"] for trial in each)),
    )
