"""Foreign values in messages: values of files from unknown authors, and paths in a command."""

from __future__ import annotations

import os
import reprlib
import shlex
from pathlib import Path

_LONGEST = 60

_short = reprlib.Repr()
_short.maxlevel, _short.maxlist, _short.maxtuple, _short.maxdict = 3, 8, 8, 8
_short.maxstring = _short.maxother = _short.maxlong = _LONGEST


def shown(value: object) -> str:
    """A value as Python writes it, on one line of at most 60 printable characters, however large it is."""
    try:
        text = _short.repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        text = f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def quoted(text: str) -> str:
    """A text as one word of a shell's command line, on one line whatever bytes it stands for."""
    if text.isprintable():
        return shlex.quote(text)
    # The quoting of bash, zsh, ksh and POSIX of 2024.
    escaped = (
        f"\\{letter}" if letter in "\\'" else letter if letter.isprintable() else _bytes_of(letter) for letter in text
    )
    return f"$'{''.join(escaped)}'"


def _bytes_of(letter: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(letter))


def argument(path: str | Path) -> str:
    """A path as a word of a shell's command line, which is read as a path even if it begins with a dash."""
    text = str(path)
    return quoted(f"./{text}" if text.startswith("-") else text)
