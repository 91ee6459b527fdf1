"""`rows.jsonl`: one JSON object a line for every run that ended, well or not."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sonew_compiled.errors import SonewError, UsageError

ROWS_FILE = "rows.jsonl"

Row = dict[str, Any]


def read_rows(folder: Path) -> list[Row]:
    """The rows of a benchmark's folder, empty if there are none. A last line that was cut off is left out.

    Raises:
      SonewError: the file cannot be read, or a line is no row.
    """
    path = folder / ROWS_FILE
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SonewError(f"{path} cannot be read ({error}): move it away or give another -o/--output") from None
    lines = text.splitlines()
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        if _is_row(line):
            rows.append(json.loads(line))
        elif number < len(lines) or text.endswith("\n"):
            raise SonewError(
                f"{path} line {number} is no row of a benchmark: remove that line or give another -o/--output"
            )
    return rows


def _is_row(line: str) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return isinstance(row, dict) and isinstance(row.get("settings"), dict) and "kind" in row


def append_row(folder: Path, row: Row) -> None:
    """Adds a row, flushed at once; numbers that are NaN or infinite become null. A line that was cut off is dropped.

    Raises:
      SonewError: it cannot be written.
    """
    path = folder / ROWS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole != len(data):
                with path.open("r+b") as stream:
                    if _is_row(data[whole:].decode(errors="replace")):  # an editor left out the end of the line
                        stream.seek(0, os.SEEK_END)
                        stream.write(b"\n")
                    else:
                        stream.truncate(whole)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite(row), allow_nan=False) + "\n")
    except OSError as error:
        raise SonewError(f"{path} cannot be written ({error.strerror or error}): free space") from None


def latest(rows: Sequence[Row]) -> list[Row]:
    """The rows without those that a later one of the same kind and settings replaces, in order."""
    by_key = {json.dumps([row["kind"], row["settings"]], sort_keys=True): row for row in rows}
    return list(by_key.values())


def check_new(folder: Path, *, resume: bool) -> list[Row]:
    """The rows that there are already.

    Raises:
      UsageError: there are some, and they were not asked for.
    """
    rows = read_rows(folder)
    if rows and not resume:
        raise UsageError(
            f"{folder} holds {len(rows)} rows of a benchmark: go on with it by --resume, or give another -o/--output"
        )
    return rows


def to_losses(curve: Sequence[Mapping[str, Any]], goals: Sequence[float]) -> list[dict[str, Any]]:
    """The first epoch of a training at which each loss was reached: its `steps` and `seconds`, null if it never was."""
    reached = [(goal, next((row for row in curve if row["loss"] <= goal), None)) for goal in goals]
    return [{"loss": goal, "steps": row and row["step"], "seconds": row and row["seconds"]} for goal, row in reached]


def finite(value: Any) -> Any:
    """The value with null for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
