"""The declaration of a setting that a user can choose: its name, its range and its explanation.

Each setting of an optimizer and each option of a run is declared once. The command line's options, the checks and the
messages are made from the declarations.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

from sonew_compiled.errors import UsageError

FLOAT32_LEAST = 2.0**-126
"""The least positive number that float32 holds with all of its digits. A step has its numbers in float32."""

FLOAT32_MOST = 2.0**128 - 2.0**104
"""The largest number of float32."""


def flag_of(name: str) -> str:
    """The option of the command line for a name in Python: `--weight-decay` for `weight_decay`."""
    return f"--{name.replace('_', '-')}"


def written(value: float | str) -> str:
    """A value as a word of a command line, which is read back as the same value."""
    return value if isinstance(value, str) else f"{value:g}" if float(f"{value:g}") == value else repr(value)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A number or a word that a user can choose.

    Attributes:
      name: its name in Python.
      kind: `int`, `float`, `str` or, for what is on or off, `bool`.
      help: a sentence for the command line.
      accepted: its range and an example, as words that follow "give".
      least: the least number that is accepted.
      most: the largest number that is accepted.
      choices: the words that are accepted.
    """

    name: str
    kind: type[int] | type[float] | type[str] | type[bool]
    help: str
    accepted: str
    least: float = -math.inf
    most: float = math.inf
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return flag_of(self.name)

    def accepts(self, value: Any) -> bool:
        """Whether the value is accepted."""
        if self.kind is str:
            return value in self.choices
        if self.kind is bool:
            return isinstance(value, bool)
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        return (self.kind is float or number.is_integer()) and self.least <= number <= self.most

    def check(self, value: Any) -> None:
        """Checks a value.

        Raises:
          UsageError: the value is not accepted; the message has the value and the range.
        """
        if not self.accepts(value):
            shown = repr(value) if isinstance(value, str) else value
            raise UsageError(f"{self.flag} is {shown}; give {self.accepted}")
