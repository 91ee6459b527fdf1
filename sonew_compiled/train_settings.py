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
from sonew_compiled.pages import page
from sonew_compiled.setting import FLOAT32_MOST, Setting

SCHEDULES = ("constant", "cosine", "linear", "step", "exponential", "one-cycle", "paper")
DEFAULT_SCHEDULE = "cosine"
DEFAULT_EPOCHS = 20

# The schedules that end at a rate of the user's choice, and those of them that never reach 0.
_WITH_FINAL_RATE = ("cosine", "linear", "step", "exponential", "one-cycle")
_ABOVE_ZERO = ("step", "exponential")

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
        most=FLOAT32_MOST,
        accepted="zero or a positive number, such as 1e-2",
        shown_default="the bundle's, else the optimizer's preset",
    )
    schedule: str = _option(
        DEFAULT_SCHEDULE,
        help=f"Schedule of the learning rate; {page('reference/optimizers.md')} has the formulas.",
        kind=str,
        choices=SCHEDULES,
        accepted=f"one of {', '.join(SCHEDULES)}",
        shown_default=f"the bundle's, else {DEFAULT_SCHEDULE}",
    )
    warmup_steps: int | None = _option(
        None,
        help="Steps of warm-up, during which the learning rate rises.",
        shown_default="the larger of 100 and a twentieth of the steps, at most half of them; for one-cycle 30 %",
        **_whole(0),
    )
    warmup_epochs: int | None = _option(
        None,
        help="Length of the warm-up in epochs, instead of --warmup-steps.",
        shown_default="for paper the larger of 2 and a twentieth of the epochs",
        **_whole(0),
    )
    final_rate: float | None = _option(
        None,
        help=f"Learning rate at the end of the run, for {', '.join(_WITH_FINAL_RATE[:-1])} and {_WITH_FINAL_RATE[-1]}.",
        kind=float,
        least=0.0,
        most=FLOAT32_MOST,
        accepted="zero or a positive number, such as 1e-4",
        shown_default="a hundredth of the peak for step, a thousandth for exponential, else 0",
    )
    seed: int = _option(
        0, help="Seed of the initial weights and of the order of the data.", is_fixed=True, **_whole(0, 2**31 - 1)
    )
    keep: int = _option(3, help="Number of checkpoints to keep.", **_whole(1))
    checkpoint_every: int = _option(
        1,
        help="Epochs between checkpoints; the end of the run always has one.",
        kept=Kept.COMMAND,
        **_whole(1),
    )
    evaluate_every: int = _option(
        1,
        help="Epochs between evaluations of the test split; the last epoch always has one. 0: at the end only.",
        kept=Kept.COMMAND,
        **_whole(0),
    )
    keep_best: bool = _option(
        False,
        help="Also keep the checkpoint of the epoch with the smallest test loss.",
        shown_default="no",
        kind=bool,
        accepted="True or False",
    )
    patience: int | None = _option(
        None,
        help="Stop after this many evaluations in a row without a smaller test loss.",
        shown_default="never",
        kept=Kept.COMMAND,
        **_whole(1),
    )
    max_steps: int | None = _option(
        None,
        help="Stop when the whole run has this many steps; it can be resumed later.",
        shown_default="all",
        kept=Kept.NOWHERE,
        **_whole(1),
    )

    def __post_init__(self) -> None:
        for option, field in zip(train_options(), dataclasses.fields(self), strict=True):
            value = getattr(self, option.name)
            if value is not None or field.default is not None:
                option.check(value)
                # Such as NumPy's numbers, and 2.0 where whole numbers are asked for.
                object.__setattr__(self, option.name, option.kind(value))
        self._check_together()

    def _check_together(self) -> None:
        """Checks the options that depend on each other."""
        if not self.evaluate_every and (self.keep_best or self.patience):
            asked = "--keep-best" if self.keep_best else f"--patience {self.patience}"
            raise UsageError(f"{asked} needs evaluations, and --evaluate-every is 0; give 1 or more")
        if self.warmup_steps is not None and self.warmup_epochs is not None:
            raise UsageError("--warmup-steps and --warmup-epochs are two units of one length; leave one of them out")
        if self.warmup_steps is not None and self.schedule == "paper":
            raise UsageError(
                "--schedule paper changes the rate by epoch; give --warmup-epochs instead of --warmup-steps"
            )
        if self.final_rate is None:
            return
        if self.schedule not in _WITH_FINAL_RATE:
            raise UsageError(
                f"--schedule {self.schedule} has no --final-rate; leave it out, or choose {', '.join(_WITH_FINAL_RATE)}"
            )
        if self.final_rate > self.learning_rate:
            raise UsageError(
                f"--final-rate is {self.final_rate:g}, above the peak {self.learning_rate:g}; give a smaller one"
            )
        if self.final_rate == 0 < self.learning_rate and self.schedule in _ABOVE_ZERO:
            raise UsageError(f"--final-rate is 0, which --schedule {self.schedule} never reaches; give a positive one")

    def changed(self, given: Mapping[str, Any]) -> TrainSettings:
        """These settings with the given ones in place.

        A given schedule or warm-up also removes the settings that do not go with it.

        Raises:
          UsageError: a value is out of range.
        """
        schedule = given.get("schedule", self.schedule)
        removed: dict[str, Any] = {}
        if "warmup_epochs" in given or schedule == "paper":
            removed["warmup_steps"] = None
        if "warmup_steps" in given:
            removed["warmup_epochs"] = None
        if schedule not in _WITH_FINAL_RATE:
            removed["final_rate"] = None
        return dataclasses.replace(self, **{**removed, **given})

    def with_warmup(self, steps_per_epoch: int) -> TrainSettings:
        """These settings with a length of the warm-up, so that a resumed run keeps it whatever its `epochs` are."""
        if self.warmup_steps is not None or self.warmup_epochs is not None:
            return self
        if self.schedule == "paper":
            return dataclasses.replace(self, warmup_epochs=default_warmup_epochs(self.epochs))
        return dataclasses.replace(
            self, warmup_steps=default_warmup_steps(self.schedule, self.epochs * steps_per_epoch)
        )

    def to_metadata(self) -> dict[str, str]:
        """The options that a checkpoint remembers, as strings for its header."""
        values = {option.name: getattr(self, option.name) for option in train_options(Kept.CHECKPOINT)}
        return {name: str(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, source: Path) -> TrainSettings:
        """The settings that `to_metadata` wrote.

        Raises:
          SonewError: a setting is missing or of the wrong kind.
        """
        try:
            if longest := next((name for name, value in metadata.items() if _is_too_long(name, value)), ""):
                raise ValueError(longest)
            if not metadata.keys() & _WARMUPS:
                raise KeyError("warmup_steps")
            values: dict[str, Any] = {
                option.name: _read(option, metadata[option.name])
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

    def named(self) -> dict[str, Any]:
        """The options that have a value, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def flags(self) -> list[str]:
        """The options that a checkpoint does not remember, as words that the resuming command must repeat."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return [
            word
            for option in train_options(Kept.COMMAND)
            if (value := getattr(self, option.name)) != defaults[option.name]
            for word in ((option.flag,) if option.kind is bool else (option.flag, str(value)))
        ]


def _read(option: TrainOption, text: str) -> Any:
    """The value of an option that was written as `str(value)`."""
    if option.kind is bool:
        if text not in ("True", "False"):
            raise ValueError(text)
        return text == "True"
    return option.kind(text)


def _is_too_long(name: str, value: str) -> bool:
    """Whether the value of an option has more characters than any number or name has."""
    return len(value) > 40 and any(option.name == name for option in _OPTIONS)


def default_warmup_epochs(epochs: int) -> int:
    """The epochs of warm-up of `paper`: the larger of 2 and a twentieth of the epochs, but fewer than the epochs."""
    return min(max(2, round(epochs / 20)), epochs - 1)


def default_warmup_steps(schedule: str, steps: int) -> int:
    """The steps of warm-up of a run of `steps` steps.

    It is 30 % for `one-cycle`. Else it is the larger of 100 and a twentieth, but at most half of the run. The averages
    of an optimizer need about so many steps before they are worth a step at the peak.
    """
    if schedule == "one-cycle":
        return round(steps * 3 / 10)
    return min(max(100, round(steps / 20)), steps // 2)


# A checkpoint that is older than another option was trained with the option's default.
_IN_EVERY_CHECKPOINT = ("epochs", "learning_rate", "schedule", "seed")
_WARMUPS = {"warmup_steps", "warmup_epochs"}


def train_options(kept: Kept | None = None) -> tuple[TrainOption, ...]:
    """The options in order; with `kept`, only those that a resumed run takes from there."""
    return tuple(option for option in _OPTIONS if kept in (None, option.kept))


_OPTIONS = tuple(TrainOption(name=field.name, **field.metadata[_KEY]) for field in dataclasses.fields(TrainSettings))
