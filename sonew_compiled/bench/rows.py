"""`rows.jsonl`: a line with a JSON object for every run that ended, with or without an error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sonew_compiled.bench._row_format import Row as Row
from sonew_compiled.bench._row_format import check_row
from sonew_compiled.errors import SonewError, UsageError, counted
from sonew_compiled.runtime.json_files import end_last_line, read_lines
from sonew_compiled.runtime.tensorfile import write_atomically

ROWS_FILE = "rows.jsonl"

_MOST_ROWS = 2_000


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, or of a benchmark's folder; none if there is no file.

    A last line that is cut off is left out. Rows of an earlier schema are given in the form of this one.

    Raises:
      SonewError: the file cannot be read, or a line is no row.
    """
    path = path / ROWS_FILE if path.is_dir() or path.suffix != ".jsonl" else path
    rows = read_lines(path, check_row, what="a row of a benchmark", remedy="remove that line or give another folder")
    check_count(rows, str(path))
    return rows


def check_count(rows: Sequence[Row], what: str) -> None:
    """Refuses more rows than the report can show.

    Raises:
      SonewError: there are too many rows; the message names `what`, which holds them.
    """
    if len(rows) > _MOST_ROWS:
        raise SonewError(f"{what} has {len(rows):,} rows, more than {_MOST_ROWS:,}: give fewer")


def append_row(folder: Path, row: Row) -> None:
    """Appends a row and flushes it; NaN and infinities become null. A last line that is cut off is removed.

    Raises:
      SonewError: the row cannot be written.
    """
    path = folder / ROWS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        end_last_line(path, check_row)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(_line(row))
    except OSError as error:
        raise SonewError(f"{path} cannot be written ({error.strerror or error}): free space") from None


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Writes the whole file atomically.

    Raises:
      SonewError: the file cannot be written; its old contents stay.
    """
    write_atomically(folder / ROWS_FILE, [_line(row).encode() for row in rows])


def _line(row: Row) -> str:
    return json.dumps(finite(row), allow_nan=False) + "\n"


def latest(rows: Sequence[Row]) -> list[Row]:
    """The last row of each machine, kind and settings, in the order of the first.

    The last is that of the latest date. Rows without a date are older than those with one, and are in the order of the
    file.
    """
    by_key: dict[str, Row] = {}
    for row in rows:
        key = json.dumps([row["kind"], row["settings"], row["machine_id"]], sort_keys=True)
        if key not in by_key or row.get("date", "") >= by_key[key].get("date", ""):
            by_key[key] = row
    return list(by_key.values())


def merged(parts: Sequence[Sequence[Row]]) -> list[Row]:
    """The rows of all parts in order, without repetitions of a whole row, as of a part that is given twice."""
    return list({json.dumps(row, sort_keys=True): row for part in parts for row in part}.values())


def check_new(folder: Path, *, resume: bool) -> list[Row]:
    """The rows that the folder already holds.

    Raises:
      UsageError: there are rows, and `resume` is false.
    """
    rows = read_rows(folder)
    if rows and not resume:
        raise UsageError(
            f"{folder} holds {counted(len(rows), 'row')} of a benchmark: continue it with --resume, or "
            "give another -o/--output"
        )
    return rows


def to_losses(curve: Sequence[Mapping[str, Any]], goals: Sequence[float]) -> list[dict[str, Any]]:
    """The `steps` and `seconds` of the first epoch that reached each loss; null if none did."""
    reached = [(goal, _first_below(curve, goal)) for goal in goals]
    return [{"loss": goal, "steps": row and row["step"], "seconds": row and row["seconds"]} for goal, row in reached]


def _first_below(curve: Sequence[Mapping[str, Any]], goal: float) -> Mapping[str, Any] | None:
    return next((row for row in curve if row["loss"] is not None and row["loss"] <= goal), None)


def finite(value: Any) -> Any:
    """The value with null in place of every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
