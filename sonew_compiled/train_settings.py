"""The settings of a training run: each option of `sonew run` that the runtime reads is one field here.

The fields make the command line's options, the checks, the settings in a checkpoint, the settings that a resumed run
must share, and the command that resumes.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.setting import Setting

SCHEDULES = ("paper", "constant", "cosine")
DEFAULT_SCHEDULE = "paper"
DEFAULT_EPOCHS = 20

_LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
_KEY = "option"


class Kept(enum.Enum):
    """The source of an option in a resumed run, if the user does not give it again."""

    CHECKPOINT = "the checkpoint remembers it"
    COMMAND = "the command that resumes repeats it"
    NOWHERE = "it is of one process alone"


@dataclass(frozen=True, kw_only=True)
class TrainOption(Setting):
    """A field of `TrainSettings` as an option of `sonew run`.

    Attributes:
      shown_default: the default as the help shows it.
      kept: its source in a resumed run.
      is_fixed: whether a resumed run must have the checkpoint's value.
    """

    shown_default: str
    kept: Kept = Kept.CHECKPOINT
    is_fixed: bool = False


def _whole(least: int, most: int | None = None) -> dict[str, Any]:
    """A whole number in a range."""
    bounds = {"least": least} if most is None else {"least": least, "most": most}
    return {"kind": int, "accepted": f"a whole number from {least} {'on' if most is None else f'to {most}'}", **bounds}


def _option(default: Any = dataclasses.MISSING, **declared: Any) -> Any:
    """A field that is an option; `declared` as `TrainOption` takes it."""
    declared = {"shown_default": str(default), **declared}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata={_KEY: declared})
    return dataclasses.field(default=default, metadata={_KEY: declared})


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The settings of a training run. `train_options()` gives the meaning and the range of each field.

    Raises:
      UsageError: a value is out of range.
    """

    epochs: int = _option(
        help="Passes over the data in the whole run, including those before a resumed checkpoint.",
        shown_default=str(DEFAULT_EPOCHS),
        **_whole(1),
    )
    learning_rate: float = _option(
        help="Peak learning rate.",
        kind=float,
        least=0.0,
        most=_LARGEST_FLOAT32,
        accepted="zero or a positive number, such as 1e-2",
        shown_default="the bundle's, else the optimizer's preset",
    )
    schedule: str = _option(
        DEFAULT_SCHEDULE,
        help="Schedule of the learning rate.",
        kind=str,
        choices=SCHEDULES,
        accepted=f"one of {', '.join(SCHEDULES)}",
        shown_default=f"the bundle's, else {DEFAULT_SCHEDULE}",
    )
    warmup_epochs: int | None = _option(
        None,
        help="Epochs of warm-up, in which the learning rate rises.",
        shown_default="the larger of 2 and a twentieth of the epochs",
        **_whole(0),
    )
    seed: int = _option(
        0, help="Seed of the initial weights and of the order of the data.", is_fixed=True, **_whole(0, 2**31 - 1)
    )
    keep: int = _option(3, help="Checkpoints to keep.", kept=Kept.COMMAND, **_whole(1))
    checkpoint_every: int = _option(
        1,
        help="Epochs between checkpoints; the end of the run always has one.",
        kept=Kept.COMMAND,
        **_whole(1),
    )
    max_steps: int | None = _option(
        None,
        help="Stop after this many steps of the whole run; it can be resumed later.",
        shown_default="all",
        kept=Kept.NOWHERE,
        **_whole(1),
    )

    def __post_init__(self) -> None:
        for option, field in zip(train_options(), dataclasses.fields(self), strict=True):
            value = getattr(self, option.name)
            if value is not None or field.default is not None:
                option.check(value)

    def to_metadata(self) -> dict[str, str]:
        """The options that a checkpoint remembers, as strings for its header."""
        values = {option.name: getattr(self, option.name) for option in train_options(Kept.CHECKPOINT)}
        if values["warmup_epochs"] is None:
            values["warmup_epochs"] = default_warmup_epochs(self.epochs)
        return {name: str(value) for name, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, source: Path) -> TrainSettings:
        """The settings that `to_metadata` wrote.

        Raises:
          SonewError: a setting is missing or of the wrong kind.
        """
        try:
            if longest := next((name for name, value in metadata.items() if _is_too_long(name, value)), ""):
                raise ValueError(longest)
            values: dict[str, Any] = {
                option.name: option.kind(metadata[option.name])
                for option in train_options(Kept.CHECKPOINT)
                if option.name in metadata or option.name in _IN_EVERY_CHECKPOINT
            }
        except (KeyError, ValueError) as error:
            raise SonewError(
                f"{source} does not say how it was trained ({str(error)[:100]!r}): use another checkpoint"
            ) from None
        try:
            return cls(**values)
        except UsageError as error:
            raise SonewError(f"{source} names an impossible training setting: {error}") from None

    def flags(self) -> list[str]:
        """The options that a checkpoint does not remember, as words that the resuming command must repeat."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return [
            word
            for option in train_options(Kept.COMMAND)
            if (value := getattr(self, option.name)) != defaults[option.name]
            for word in (option.flag, str(value))
        ]


def _is_too_long(name: str, value: str) -> bool:
    """Whether the value of an option has more characters than any number or name has."""
    return len(value) > 40 and any(option.name == name for option in _OPTIONS)


def default_warmup_epochs(epochs: int) -> int:
    """The larger of 2 and a twentieth of the epochs, but always fewer than the epochs."""
    return min(max(2, round(epochs / 20)), epochs - 1)


# A checkpoint that is older than another option was trained with the option's default.
_IN_EVERY_CHECKPOINT = ("epochs", "learning_rate", "schedule", "warmup_epochs", "seed")


def train_options(kept: Kept | None = None) -> tuple[TrainOption, ...]:
    """The options in order; with `kept`, only those that a resumed run takes from there."""
    return tuple(option for option in _OPTIONS if kept in (None, option.kept))


_OPTIONS = tuple(TrainOption(name=field.name, **field.metadata[_KEY]) for field in dataclasses.fields(TrainSettings))
