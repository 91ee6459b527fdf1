"""The settings of a step besides its optimizer: clipping, weight decay, frozen parameters, averaged weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from sonew_compiled.errors import UsageError
from sonew_compiled.setting import FLOAT32_LEAST, FLOAT32_MOST, Setting, flag_of, written


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """The settings of a step; docs/reference/training-options.md has the arithmetic. None and empty leave a part out.

    Attributes:
      clip_value: the bound `X`: each number of a gradient is clipped to [-X, X].
      clip_norm: gradients are scaled down so that the norm of all together is at most this; after `clip_value`.
      decay: decoupled weight decay: a step subtracts the learning rate times this times the parameter.
      no_decay: patterns of parameters that do not decay; if empty, those of fewer than two axes do not.
      freeze: patterns of parameters that are not trained, matched against their paths: `encoder/*`.
      ema: the decay of an exponential average of the parameters, with which evaluation and predictions are made.

    Raises:
      UsageError: a number is out of range, or `no_decay` is given without `decay`.
    """

    clip_value: float | None = None
    clip_norm: float | None = None
    decay: float | None = None
    no_decay: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    ema: float | None = None

    def __post_init__(self) -> None:
        for setting in NUMBERS:
            if (value := getattr(self, setting.name)) is not None:
                setting.check(value)
        for name in PATTERNS:
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(each, str) and each for each in value):
                raise UsageError(f"{name} is {value!r}; give a sequence of patterns, such as ('encoder/*',)")
            object.__setattr__(self, name, tuple(value))
        if self.no_decay and self.decay is None:
            raise UsageError("--no-decay is given without --decay, so that nothing decays; give both or neither")

    def to_json(self) -> dict[str, Any]:
        """The settings that are given, by name; patterns as a list."""
        given = {key: value for key, value in dataclasses.asdict(self).items() if value not in (None, ())}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}

    def flags(self) -> list[str]:
        """The words of a command line with these settings."""
        words = []
        for name, value in self.to_json().items():
            for each in value if isinstance(value, list) else [written(value)]:
                words += [flag_of(name), each]
        return words


NUMBERS = (
    Setting(
        name="clip_value",
        kind=float,
        help="Clip each number of a gradient to this magnitude.",
        least=FLOAT32_LEAST,
        most=FLOAT32_MOST,
        accepted="a positive number of float32, such as 1.0",
    ),
    Setting(
        name="clip_norm",
        kind=float,
        help="Scale gradients down to this norm of all together.",
        least=FLOAT32_LEAST,
        most=FLOAT32_MOST,
        accepted="a positive number of float32, such as 1.0",
    ),
    Setting(
        name="decay",
        kind=float,
        help="Decoupled weight decay of any optimizer.",
        least=0.0,
        most=FLOAT32_MOST,
        accepted="zero or a positive number of float32, such as 0.1",
    ),
    Setting(
        name="ema",
        kind=float,
        help="Evaluate an exponential average of the parameters with this decay.",
        least=FLOAT32_LEAST,
        most=1 - 2**-24,
        accepted="a decay in (0, 1), such as 0.999",
    ),
)
"""The settings that are numbers."""

PATTERNS = {
    "no_decay": "Parameters that --decay leaves alone, such as '*/bias'; repeatable.  "
    "[default: those of fewer than two axes, as biases and norms are]",
    "freeze": "Parameters that are not trained, such as 'encoder/*'; repeatable.",
}
"""The settings that are patterns, each with its help."""

PLAIN = StepSettings()
"""A step that does nothing besides its optimizer."""


def check_matches(name: str, patterns: Sequence[str], paths: Sequence[str]) -> None:
    """Checks that each pattern of a setting matches the path of a parameter.

    Raises:
      UsageError: one matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise UsageError(f"{flag_of(name)} {pattern!r} matches no parameter; give a pattern of {in_words(paths)}")


def in_words(paths: Sequence[str], most: int = 6) -> str:
    """Some paths of parameters, for an error."""
    return ", ".join(paths[:most]) + (f" and {len(paths) - most} others" if len(paths) > most else "")
