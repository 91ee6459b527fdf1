"""What a user can choose: its name, what it may be, and how it is explained.

The settings of optimizers and the options of a run are declared with it, each once. The command line's options, the
checks and the messages are made from the declarations.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

from sonew_compiled.errors import UsageError


def flag_of(name: str) -> str:
    """The option of the command line that sets what is called so in Python: `--weight-decay` for `weight_decay`."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A number or a word that a user can choose.

    Attributes:
      name: in Python.
      kind: `int`, `float` or `str`.
      help: a sentence for the command line.
      accepted: what it may be and an example, as words that follow "give".
      least: of a number, the least that is accepted.
      most: of a number, the largest that is accepted.
      choices: of a word, what it may be.
    """

    name: str
    kind: type[int] | type[float] | type[str]
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
        """Whether it may be this."""
        if self.kind is str:
            return value in self.choices
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        return (self.kind is float or number.is_integer()) and self.least <= number <= self.most

    def check(self, value: Any) -> None:
        """Refuses what is not accepted.

        Raises:
          UsageError: with the value and what it may be.
        """
        if not self.accepts(value):
            shown = repr(value) if isinstance(value, str) else value
            raise UsageError(f"{self.flag} is {shown}; give {self.accepted}")
