"""The charts of a benchmark drawn by matplotlib, for papers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from sonew_compiled.bench._charts import Chart, Series
from sonew_compiled.figures import legend_text, pyplot

# Inches of the axes, and of a legend's entry or a bar.
_WIDTH, _HEIGHT = 9.0, 4.2
_ENTRY = 0.2


def draw(charts: Sequence[Chart]) -> dict[str, tuple[bytes, str]]:
    """Every chart by its name: a PNG and the text of an SVG."""
    plt = pyplot()
    plots = {}
    for chart in charts:
        # A random salt and a date would make two plots of the same rows differ.
        with plt.rc_context({"svg.hashsalt": "sonew"}):
            height = max(_HEIGHT, 0.8 + _ENTRY * len(chart.series))
            figure, axes = plt.subplots(figsize=(_WIDTH, height), layout="constrained")
            (_bars if chart.kind == "bars" else _curves)(axes, chart)
            axes.set_title(chart.title)
            axes.set_xlabel(chart.x)
            axes.spines[["top", "right"]].set_visible(False)
            png, svg = io.BytesIO(), io.StringIO()
            figure.savefig(png, format="png", dpi=120)
            figure.savefig(svg, format="svg", metadata={"Date": None})
            plots[chart.name] = (png.getvalue(), svg.getvalue())
            plt.close(figure)
    return plots


def _curves(axes: Any, chart: Chart) -> None:
    for number, each in enumerate(chart.series):
        axes.plot(*zip(*each.points, strict=True), label=legend_text(each.label), **_style(chart, each, number))
    axes.set(xscale="log" if chart.log_x else "linear", yscale="log" if chart.log_y else "linear", ylabel=chart.y)
    if not chart.log_x:
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(which="both", alpha=0.25)
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))


def _style(chart: Chart, series: Series, number: int) -> dict[str, Any]:
    if chart.kind == "points" and series.line >= 0:
        return {"color": series.colour, "linestyle": "", "marker": "o"}
    style = {"color": series.colour, "linestyle": ("-", "--")[number % 2], "marker": "o"}
    return style if len(series.points) == 1 else style | {"marker": ""}


def _bars(axes: Any, chart: Chart) -> None:
    lengths = [each.points[0][0] for each in chart.series]
    bars = axes.barh(range(len(lengths)), lengths, color=[each.colour for each in chart.series])
    axes.bar_label(
        bars, fmt=lambda value: f"{value:,.3g}" if value < 100 else f"{value:,.0f}", padding=3, fontsize="small"
    )
    axes.set_yticks(range(len(lengths)), [legend_text(each.label) for each in chart.series], fontsize="small")
    axes.invert_yaxis()
