"""The report of a benchmark: `table.md`, the plots, and one HTML page with all of them."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from sonew_compiled.bench._plots import draw
from sonew_compiled.bench._table import markdown, table
from sonew_compiled.bench.rows import Row
from sonew_compiled.runtime.tensorfile import write_atomically

TABLE_FILE = "table.md"
REPORT_FILE = "report.html"

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: #222 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; white-space: nowrap }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: right }
th { position: sticky; top: 0; background: #fff } td:first-child, th:first-child { text-align: left }
figure { display: inline-block; margin: 1rem 1rem 0 0 } img { max-width: 100% }
"""

_CAPTIONS = {
    "loss-epoch": "Training loss against the epoch, first seed",
    "loss-seconds": "Training loss against the seconds of training, first seed",
    "step-time": "Steady step time, median",
    "memory": "Peak resident memory of the run's process",
    "roofline": "Attained rates under the measured limits of the machine",
}


def write_report(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Writes the table, the plots and the page, and returns their paths.

    Args:
      rows: one row or more.
      folder: the benchmark's folder.

    Raises:
      SonewError: a file cannot be written; its old contents stay.
    """
    written = [folder / TABLE_FILE]
    write_atomically(written[0], [markdown(rows).encode()])
    images = {}
    for name, (png, svg) in draw(rows).items():
        images[name] = png
        for path, data in ((folder / f"{name}.png", png), (folder / f"{name}.svg", svg.encode())):
            write_atomically(path, [data])
            written.append(path)
    written.append(folder / REPORT_FILE)
    write_atomically(written[-1], [_page(rows, images).encode()])
    return written


def _page(rows: Sequence[Row], images: dict[str, bytes]) -> str:
    titles, lines = table(rows)
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>" for cells in lines)
    figures = "\n".join(
        f'<figure><img alt="{html.escape(_CAPTIONS[name])}" src="data:image/png;base64,'
        f'{base64.b64encode(png).decode()}"><figcaption>{html.escape(_CAPTIONS[name])}</figcaption></figure>'
        for name, png in images.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>sonew bench</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>sonew bench</h1>\n{_conditions(rows)}\n"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n'
        f"{figures}\n</body></html>\n"
    )


def _conditions(rows: Sequence[Row]) -> str:
    """The machines, versions and limits of the rows, each named once."""
    said: dict[str, None] = {}
    for row in rows:
        machine = row.get("machine")
        if machine:
            said.setdefault(
                f"Machine: {machine['cpu']}, {machine['threads']} threads, {machine['platform']}, "
                f"{', '.join(machine['cpu_features'])}; device {machine['device']} ({machine['device_description']})"
            )
        versions = row.get("versions")
        if versions:
            said.setdefault("Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
        limits = row.get("roofline")
        if limits:
            said.setdefault(
                f"Measured limits: {limits['copy_bytes_per_second'] / 1e9:.1f} GB/s, "
                f"{limits['flops_per_second'] / 1e9:.1f} GFLOP/s ({limits.get('how', 'somehow')})"
            )
    return "\n".join(f"<p>{html.escape(line)}</p>" for line in said)
