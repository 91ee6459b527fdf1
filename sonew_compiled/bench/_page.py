"""The page of a benchmark: a table to sort and filter, and charts by Plotly, all in one file that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import plotly.offline

from sonew_compiled.bench._charts import Chart, Series
from sonew_compiled.bench._table import notes, table
from sonew_compiled.bench.rows import Row

_HERE = Path(__file__).parent

# Up to this many epochs, the axis shows each of them.
_FEW = 12


def page(rows: Sequence[Row], charts: Sequence[Chart]) -> str:
    """The page as HTML. What rows say is escaped, as they may come from somebody else."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    columns, lines = table(rows)
    return environment.get_template("_report.html").render(
        style=(_HERE / "_report.css").read_text(encoding="utf-8"),
        script=(_HERE / "_report.js").read_text(encoding="utf-8"),
        plotly=plotly.offline.get_plotlyjs() if charts else "",
        columns=columns,
        lines=lines,
        notes=notes(rows),
        conditions=_conditions(rows),
        charts=[{"name": each.name, "title": each.title, "figure": _figure(each)} for each in charts],
    )


def _figure(chart: Chart) -> dict[str, Any]:
    """A figure of Plotly. `meta` of a trace is the line of the table that it shows, so that a filter can hide it."""
    traces = [_trace(chart, each, number) for number, each in enumerate(chart.series)]
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": chart.x}, "type": "log" if chart.log_x else "linear"},
        "yaxis": {"title": {"text": chart.y}, "type": "log" if chart.log_y else "linear"},
        "showlegend": chart.kind != "bars",
    }
    xs = [x for each in chart.series for x, _ in each.points]
    if chart.kind == "lines" and max(xs) <= _FEW and all(float(x).is_integer() for x in xs):
        layout["xaxis"]["dtick"] = 1  # no half of an epoch
    if chart.kind == "points":
        # Decades in steps of 1, 2 and 5.
        layout["xaxis"]["dtick"] = layout["yaxis"]["dtick"] = "D2"
    if chart.kind == "bars":
        # The first line of the table is on top.
        layout["yaxis"] = {"type": "category", "autorange": "reversed"}
    return {"data": traces, "layout": layout}


def _trace(chart: Chart, series: Series, number: int) -> dict[str, Any]:
    # Plotly reads some HTML in names, and so a `<` of a foreign name.
    name = series.label.replace("&", "&amp;").replace("<", "&lt;")
    xs, ys = zip(*series.points, strict=True)
    common: dict[str, Any] = {"name": name, "meta": series.line, "marker": {"color": series.colour, "size": 9}}
    if chart.kind == "bars":
        shown = "%{x:,.3s}" if xs[0] < 1 else "%{x:,.1f}" if xs[0] < 100 else "%{x:,.0f}"
        return common | {
            "type": "bar",
            "orientation": "h",
            "x": xs,
            "y": [name],
            "texttemplate": shown,
            "textposition": "outside",
            "cliponaxis": False,
            "hovertemplate": f"{shown}<extra></extra>",
        }
    is_limit = series.line < 0
    mode = "markers" if chart.kind == "points" and not is_limit else "lines+markers" if len(xs) == 1 else "lines"
    return common | {
        "type": "scatter",
        "x": xs,
        "y": ys,
        "mode": mode,
        "line": {"color": series.colour, "dash": ("solid", "dash")[number % 2]},
        "hovertemplate": "%{x:.4~g}, %{y:.4~g}",
    }


def _conditions(rows: Sequence[Row]) -> list[str]:
    """The machines, versions and limits of the rows, each named once."""
    said: dict[str, None] = {}
    for row in rows:
        machine = row.get("machine")
        if machine:
            memory = f", {row['memory_bytes'] / 1e9:.0f} GB" if "memory_bytes" in row else ""
            host = f"{row['host']}, " if row.get("host") else ""
            said.setdefault(
                f"Machine: {host}{machine['cpu']}, {machine['threads']} threads{memory}, {machine['platform']}, "
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
    return list(said)
