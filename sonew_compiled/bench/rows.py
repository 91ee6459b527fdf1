"""`rows.jsonl`: a line with a JSON object for every run that ended, with or without an error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.json_files import end_last_line, read_lines
from sonew_compiled.runtime.schema import (
    SCALAR,
    anything,
    integer,
    listed,
    mapped,
    nullable,
    number,
    path_text,
    record,
    text,
)

ROWS_FILE = "rows.jsonl"

Row = dict[str, Any]


# The fields of a row that the table, the plots and the page read are checked; other fields stay as they are.
_MOST_ROWS = 2_000
_NAME = text(100)
_SETTINGS = record(
    {
        "optimizer": record({"name": _NAME}, others=SCALAR),
        **dict.fromkeys(("precision", "target", "device"), _NAME),
        "batch_size": integer(),
    },
    {"data": path_text(), "model": text(1000)},
    others=SCALAR,
)
_CURVE = record({"epoch": integer(), "step": integer(), "seconds": number(0), "loss": nullable(number())})
_GOAL = record({"loss": number(), "steps": nullable(integer()), "seconds": nullable(number(0))})
_MACHINE = record(
    {
        **{name: text() for name in ("cpu", "platform", "device", "device_description")},
        "threads": integer(),
        "cpu_features": listed(_NAME, 1_000),
    },
    others=anything,
)
_LIMITS = record(
    {"copy_bytes_per_second": number(1), "flops_per_second": number(1)}, {"how": text(1000)}, others=anything
)
_FIGURES = (
    *("train_loss", "test_loss", "seconds", "first_step_seconds", "step_p50_seconds", "step_p95_seconds", "ratio"),
    *("optimizer_share", "gflops", "flops_share", "gbps", "bandwidth_share", "state_bytes_per_parameter"),
    *("peak_resident_bytes", "compile_seconds", "artifact_bytes", "code_bytes", "registers", "spilled_bytes"),
    *("step_flops", "step_bytes"),
)
_ROW = record(
    {"kind": _NAME, "settings": _SETTINGS},
    {
        "error": nullable(text(10_000, printable=False)),
        "versions": mapped(text(), 100),
        "bundle": nullable(_NAME),
        "machine": nullable(_MACHINE),
        "curve": listed(_CURVE, 100_000),
        "to_loss": nullable(listed(_GOAL, 100)),
        "roofline": nullable(_LIMITS),
        **{name: nullable(number()) for name in _FIGURES},
    },
    others=anything,
)


def read_rows(folder: Path) -> list[Row]:
    """The rows of a benchmark's folder, empty if there are none. A last line that is cut off is left out.

    Raises:
      SonewError: the file cannot be read, or a line is no row.
    """
    path, remedy = folder / ROWS_FILE, "remove that line or give another -o/--output"
    rows = read_lines(path, _ROW, what="a row of a benchmark", remedy=remedy)
    if len(rows) > _MOST_ROWS:
        raise SonewError(f"{path} has {len(rows):,} rows, more than {_MOST_ROWS:,}: give another -o/--output")
    return rows


def append_row(folder: Path, row: Row) -> None:
    """Appends a row and flushes it; NaN and infinities become null. A last line that is cut off is removed.

    Raises:
      SonewError: the row cannot be written.
    """
    path = folder / ROWS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        end_last_line(path, _ROW)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(finite(row), allow_nan=False) + "\n")
    except OSError as error:
        raise SonewError(f"{path} cannot be written ({error.strerror or error}): free space") from None


def latest(rows: Sequence[Row]) -> list[Row]:
    """The last row of each kind and settings, in order."""
    by_key = {json.dumps([row["kind"], row["settings"]], sort_keys=True): row for row in rows}
    return list(by_key.values())


def check_new(folder: Path, *, resume: bool) -> list[Row]:
    """The rows that the folder already holds.

    Raises:
      UsageError: there are rows, and `resume` is false.
    """
    rows = read_rows(folder)
    if rows and not resume:
        raise UsageError(
            f"{folder} holds {len(rows)} rows of a benchmark: go on with it by --resume, or give another -o/--output"
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
