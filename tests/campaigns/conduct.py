"""The conduct of a campaign: its seeds, and the ways in which a command may end."""

from __future__ import annotations

import os

# The most characters of a line for the user.
_LONGEST_LINE = 1_000

PATIENCE = 10.0 * float(os.environ.get("SONEW_CAMPAIGN_PATIENCE", "3"))
"""The seconds that a command may take: ten on an idle machine."""


def seeds(short: int) -> list[int]:
    """The seeds of a campaign from `SONEW_CAMPAIGN_SEED` on: `short` in the gate, times `SONEW_CAMPAIGN` by hand."""
    first = int(os.environ.get("SONEW_CAMPAIGN_SEED", "0"))
    return list(range(first, first + short * int(os.environ.get("SONEW_CAMPAIGN", "1"))))


def check_end(code: int, err: str, what: str) -> None:
    """Asserts that a command succeeded or refused on one clear line."""
    lines = [line for line in err.splitlines() if line.startswith("sonew")]
    assert code in (0, 1, 2), f"{what} ended with {code}: {err[-2000:]}"
    assert len(lines) == (code != 0), f"{what} says {err[-2000:]}"
    assert "unforeseen" not in err, f"{what} says {err[-2000:]}"
    assert "Traceback" not in err, f"{what} says {err[-2000:]}"
    assert all(line.isprintable() and len(line) <= _LONGEST_LINE for line in err.splitlines()), f"{what} says {err!r}"
