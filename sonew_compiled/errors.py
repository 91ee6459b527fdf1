"""Errors for the user: one line with the value, what is accepted and the remedy; and words for lines to users."""

from __future__ import annotations


class SonewError(Exception):
    """The work failed; the message is one line for the user. The command line exits with 1."""

    exit_code = 1


class UsageError(SonewError, ValueError):
    """An invalid request; the message has the value, what is accepted and the remedy. The command line exits with 2."""

    exit_code = 2


def on_one_line(text: str) -> str:
    """The text with characters that cannot be printed escaped, including line breaks."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def measured(value: float) -> str:
    """A loss or a metric: `0.3012`, and `3.012e-06` or `3.012e+09` where four decimals would be none or too many."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e7 else f"{value:.4g}"


def counted(count: int, noun: str) -> str:
    """A count with its noun: `1 step`, `1,200 steps`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
