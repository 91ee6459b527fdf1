"""The settings of a run that is resumed."""

from __future__ import annotations

from pathlib import Path

from sonew_compiled.runtime.checkpoint import find_checkpoint, read_checkpoint_metadata
from sonew_compiled.train_settings import TrainSettings


def resumed_settings(path: str | Path) -> TrainSettings:
    """The settings of a checkpoint, or of the latest one in a directory: the default when a run is resumed.

    Raises:
      UsageError: there is no checkpoint.
      SonewError: the file is no checkpoint, or is of a format version that this runtime does not read.
    """
    path = find_checkpoint(path)
    return TrainSettings.from_metadata(read_checkpoint_metadata(path), source=path)
