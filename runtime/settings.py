"""How to train, as the user asks for it and as a checkpoint remembers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.checkpoint import find_checkpoint, read_checkpoint_metadata
from sonew_compiled.runtime.schedule import DEFAULT_SCHEDULE, default_warmup_epochs, learning_rates


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How to train.

    Attributes:
      epochs: of the whole run, those before a resumed checkpoint included.
      learning_rate: the schedule's peak.
      schedule: `paper`, `constant` or `cosine`; see `learning_rates`.
      warmup_epochs: see `learning_rates`; None for the larger of 2 and a twentieth of the epochs.
      seed: of the initial parameters and of the order of the data.
      keep: checkpoints to keep.
      checkpoint_every: epochs between checkpoints; there is one at the end in any case.
      max_steps: stop after so many steps of the whole run, as if interrupted there; None for all.
    """

    epochs: int
    learning_rate: float
    schedule: str = DEFAULT_SCHEDULE
    warmup_epochs: int | None = None
    seed: int = 0
    keep: int = 3
    checkpoint_every: int = 1
    max_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("keep", "checkpoint_every", "max_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} {value} is too small: choose 1 or more")
        # Raises for the rest.
        self.rates(1)

    def rates(self, steps_per_epoch: int) -> Callable[[int], float]:
        """The learning rate as a function of the step."""
        return learning_rates(
            self.schedule,
            peak=self.learning_rate,
            epochs=self.epochs,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=self.warmup_epochs,
        )

    def to_metadata(self) -> dict[str, str]:
        """Strings for a checkpoint's header, without what says only how this process goes about it."""
        warmup = default_warmup_epochs(self.epochs) if self.warmup_epochs is None else self.warmup_epochs
        return {
            "epochs": str(self.epochs),
            "learning_rate": repr(self.learning_rate),
            "schedule": self.schedule,
            "warmup_epochs": str(warmup),
            "seed": str(self.seed),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, source: Path) -> TrainSettings:
        """The settings that `to_metadata` wrote.

        Raises:
          SonewError: one is missing or is not of its kind.
        """
        try:
            return cls(
                epochs=int(metadata["epochs"]),
                learning_rate=float(metadata["learning_rate"]),
                schedule=metadata["schedule"],
                warmup_epochs=int(metadata["warmup_epochs"]),
                seed=int(metadata["seed"]),
            )
        except (KeyError, ValueError) as error:
            raise SonewError(f"{source} does not say how it was trained ({error}): use another checkpoint") from None


def resumed_settings(path: str | Path) -> TrainSettings:
    """The settings of a checkpoint, or of the latest one in a directory: the default when a run is resumed.

    Raises:
      UsageError: there is no checkpoint.
      SonewError: the file is not one, or is of a format version that this runtime does not read.
    """
    path = find_checkpoint(path)
    return TrainSettings.from_metadata(read_checkpoint_metadata(path), source=path)
