"""The report of a benchmark: `table.md`, the plots, and one HTML page with the table and the charts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sonew_compiled.bench._charts import charts_of
from sonew_compiled.bench._page import page
from sonew_compiled.bench._plots import draw
from sonew_compiled.bench._table import markdown
from sonew_compiled.bench.rows import Row
from sonew_compiled.runtime.tensorfile import write_atomically

TABLE_FILE = "table.md"
REPORT_FILE = "report.html"


def write_report(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Writes the table, the plots and the page, and returns their paths.

    Args:
      rows: one row or more.
      folder: the benchmark's folder.

    Raises:
      SonewError: a file cannot be written; its old contents stay.
    """
    charts = charts_of(rows)
    files = {TABLE_FILE: markdown(rows).encode()}
    for name, (png, svg) in draw(charts).items():
        files |= {f"{name}.png": png, f"{name}.svg": svg.encode()}
    files[REPORT_FILE] = page(rows, charts).encode()
    for name, content in files.items():
        write_atomically(folder / name, [content])
    return [folder / name for name in files]
