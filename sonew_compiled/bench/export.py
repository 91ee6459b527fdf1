"""`sonew bench export`: rows as a table for other programs, CSV or Parquet, one line for each row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sonew_compiled.bench.rows import Row
from sonew_compiled.errors import UsageError
from sonew_compiled.install import require
from sonew_compiled.runtime.tensorfile import write_atomically

FORMATS = (".csv", ".parquet")


def export(rows: Sequence[Row], path: Path) -> None:
    """Writes the rows in the format that the path's suffix names.

    A value within an object has a column of its own, named by its path, as `settings.optimizer.name`. A list is JSON
    text in CSV and a list in Parquet. A row without a value has an empty field, or null.

    Raises:
      UsageError: the suffix names no format.
      SonewError: Parquet needs pyarrow, which is not installed, or the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise UsageError(
            f"{path} ends in neither {' nor '.join(FORMATS)}, which name the format: give another -o/--output"
        )
    columns = _columns([_flat(row) for row in rows])
    write_atomically(path, [_csv(columns) if path.suffix == ".csv" else _parquet(columns)])


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            found |= _flat(inner, f"{prefix}{key}.")
        else:
            found[prefix + key] = inner
    return found


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _csv(columns: dict[str, list[Any]]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(columns)
    for values in zip(*columns.values(), strict=True):
        writer.writerow(json.dumps(value) if isinstance(value, list) else value for value in values)
    return stream.getvalue().encode()


def _parquet(columns: dict[str, list[Any]]) -> bytes:
    require("parquet", purpose="a Parquet file")
    import pyarrow as pa
    import pyarrow.parquet

    def array(values: list[Any]) -> Any:
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # texts and numbers in one column
            return pa.array([value if value is None else json.dumps(value) for value in values])

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({name: array(values) for name, values in columns.items()}), stream)
    return stream.getvalue()
