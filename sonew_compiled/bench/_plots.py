"""The plots of a benchmark, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sonew_compiled.bench._lines import Line, lines_of
from sonew_compiled.bench.rows import Row
from sonew_compiled.figures import legend_text, pyplot

Drawing = Callable[[Any, list[Line]], bool]


def draw(rows: Sequence[Row]) -> dict[str, tuple[bytes, str]]:
    """Every plot for which the rows have numbers, by name: a PNG and the text of an SVG."""
    plt = pyplot()
    lines = [line for line in lines_of(rows) if line.good]
    plots = {}
    for name, drawing in PLOTS.items():
        # A random salt and a date would make two plots of the same rows differ.
        with plt.rc_context({"svg.hashsalt": "sonew"}):
            figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
            if drawing(axes, lines):
                axes.spines[["top", "right"]].set_visible(False)
                png, svg = io.BytesIO(), io.StringIO()
                figure.savefig(png, format="png", dpi=120)
                figure.savefig(svg, format="svg", metadata={"Date": None})
                plots[name] = (png.getvalue(), svg.getvalue())
            plt.close(figure)
    return plots


def _loss_against(key: str, label: str) -> Drawing:
    def drawing(axes: Any, lines: list[Line]) -> bool:
        trained = [(line, points) for line in lines if (points := _points(line, key))]
        for line, points in trained:
            marker = "o" if len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), label=legend_text(line.label), marker=marker)
        if trained:
            positive = all(loss > 0 for _, points in trained for _, loss in points)
            axes.set(xlabel=label, ylabel="training loss (mean over the epoch)", yscale="log" if positive else "linear")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(which="both", alpha=0.25)
            axes.legend(frameon=False, fontsize="small")
        return bool(trained)

    return drawing


def _points(line: Line, key: str) -> list[tuple[float, float]]:
    """The curve of the first seed with a curve."""
    curve: list[dict[str, Any]] = next((row["curve"] for row in line.good if row.get("curve")), [])
    return [(point[key], point["loss"]) for point in curve if point["loss"] is not None]


def _bars(key: str, scale: float, label: str) -> Drawing:
    def drawing(axes: Any, lines: list[Line]) -> bool:
        values = [(line.label, value * scale) for line in lines if (value := line.median(key)) is not None]
        if values:
            labels, heights = zip(*values, strict=True)
            bars = axes.barh(range(len(values)), heights)
            axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize="small")
            axes.set_yticks(range(len(values)), labels, fontsize="small")
            axes.invert_yaxis()
            axes.set_xlabel(label)
        return bool(values)

    return drawing


def _roofline(axes: Any, lines: list[Line]) -> bool:
    """The attained rates over operations per byte, under the measured limits."""
    needed = ("roofline", "gflops", "step_flops", "step_bytes")
    rows = [(line, row) for line in lines for row in line.good if all(row.get(name) for name in needed)]
    if not rows:
        return False
    for limits in {str(row["roofline"]): row["roofline"] for _, row in rows}.values():
        peak, bandwidth = limits["flops_per_second"] / 1e9, limits["copy_bytes_per_second"] / 1e9
        corner = peak / bandwidth
        axes.plot([corner / 100, corner, corner * 100], [peak / 100, peak, peak], color="0.6", zorder=0)
    labels = set()
    for line, row in rows:
        axes.scatter(
            row["step_flops"] / row["step_bytes"],
            row["gflops"],
            label=None if line.label in labels else legend_text(line.label),
            color=f"C{lines.index(line) % 10}",
        )
        labels.add(line.label)
    axes.set(xscale="log", yscale="log", xlabel="operations a byte that a step must move", ylabel="GFLOP/s")
    axes.grid(which="both", alpha=0.25)
    axes.legend(frameon=False, fontsize="small")
    return True


PLOTS: Mapping[str, Drawing] = MappingProxyType(
    {
        "loss-epoch": _loss_against("epoch", "epoch"),
        "loss-seconds": _loss_against("seconds", "seconds of training"),
        "step-time": _bars("step_p50_seconds", 1e3, "steady step, p50 (ms)"),
        "memory": _bars("peak_resident_bytes", 1e-6, "peak resident memory (MB)"),
        "roofline": _roofline,
    }
)
"""The plots, by the name of the file."""
