"""The charts of a benchmark as data, which `_plots` draws into files and `_page` into the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sonew_compiled.bench._colours import colours
from sonew_compiled.bench._lines import Line, lines_of
from sonew_compiled.bench.rows import Row


@dataclass(frozen=True, kw_only=True)
class Series:
    """A series of a chart: one line of the table.

    Attributes:
      label: the line in a few words.
      line: the place of the line in the table, from 0; -1 for a limit of a machine.
      colour: as `#rrggbb`, which no other line of the benchmark has.
      points: x and y of each point; of a bar its length and nothing else.
    """

    label: str
    line: int
    colour: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart.

    Attributes:
      name: the name of its files.
      title: its caption.
      kind: `lines`, `bars` or `points`.
      x, y: the labels of the axes; bars have no y.
      log_x, log_y: whether the axes are logarithmic.
      series: one for each line that has the numbers; the limits of machines, drawn as lines, come first.
    """

    name: str
    title: str
    kind: str
    x: str
    y: str = ""
    log_x: bool = False
    log_y: bool = False
    series: tuple[Series, ...]


def charts_of(rows: Sequence[Row]) -> list[Chart]:
    """The charts for which the rows have numbers."""
    lines = lines_of(rows)
    given = list(zip(range(len(lines)), lines, colours(len(lines)), strict=True))
    good = [each for each in given if each[1].good]
    return [chart for make in _CHARTS.values() if (chart := make(good)).series]


_Given = Sequence[tuple[int, Line, str]]

_LIMIT_COLOUR = "#888888"


def _loss_against(key: str, label: str, title: str) -> Callable[[_Given], Chart]:
    def make(given: _Given) -> Chart:
        series = tuple(
            Series(label=line.label, line=index, colour=colour, points=points)
            for index, line, colour in given
            if (points := _curve(line, key))
        )
        return Chart(
            name=f"loss-{key}",
            title=title,
            kind="lines",
            x=label,
            y="training loss (mean over the epoch)",
            log_y=all(loss > 0 for each in series for _, loss in each.points),
            series=series,
        )

    return make


def _curve(line: Line, key: str) -> tuple[tuple[float, float], ...]:
    """The curve of the first seed with a curve."""
    curve: list[dict[str, Any]] = next((row["curve"] for row in line.good if row.get("curve")), [])
    return tuple((point[key], point["loss"]) for point in curve if point["loss"] is not None)


def _bars(name: str, key: str, scale: float, label: str, title: str) -> Callable[[_Given], Chart]:
    def make(given: _Given) -> Chart:
        series = tuple(
            Series(label=line.label, line=index, colour=colour, points=((value * scale, 0.0),))
            for index, line, colour in given
            if (value := line.median(key)) is not None
        )
        return Chart(name=name, title=title, kind="bars", x=label, series=series)

    return make


def _roofline(given: _Given) -> Chart:
    """The attained rates over operations per byte, under the measured limits of each machine."""
    needed = ("roofline", "gflops", "step_flops", "step_bytes")
    limits: dict[tuple[str, str], tuple[float, float]] = {}
    series = []
    for index, line, colour in given:
        rows = [row for row in line.good if all(row.get(name) for name in needed)]
        for limit in (row["roofline"] for row in rows):
            # Other programs can only lower a measurement, so the highest is right.
            place = line.machine, line.settings["device"]
            had = limits.get(place, (0.0, 0.0))
            measured = limit["flops_per_second"] / 1e9, limit["copy_bytes_per_second"] / 1e9
            limits[place] = max(had[0], measured[0]), max(had[1], measured[1])
        if rows:
            points = tuple((row["step_flops"] / row["step_bytes"], row["gflops"]) for row in rows)
            series.append(Series(label=line.label, line=index, colour=colour, points=points))
    several = len({device for _, device in limits}) > 1
    roofs = [
        _limit(" ".join(filter(None, (device if several else "", machine))), *limit)
        for (machine, device), limit in limits.items()
    ]
    return Chart(
        name="roofline",
        title="Attained rates under the measured limits of the machine",
        kind="points",
        x="operations a byte that a step must move",
        y="GFLOP/s",
        log_x=True,
        log_y=True,
        series=(*roofs, *series),
    )


def _limit(place: str, peak: float, bandwidth: float) -> Series:
    """The roof of a device: what memory allows up to the corner, and from there on the rate of products."""
    corner = peak / bandwidth
    return Series(
        label=f"limit{f' of {place}' if place else ''}: {peak:,.0f} GFLOP/s, {bandwidth:,.0f} GB/s",
        line=-1,
        colour=_LIMIT_COLOUR,
        points=((corner / 100, peak / 100), (corner, peak), (corner * 100, peak)),
    )


_CHARTS: Mapping[str, Callable[[_Given], Chart]] = MappingProxyType(
    {
        "loss-epoch": _loss_against("epoch", "epoch", "Training loss against the epoch, first seed"),
        "loss-seconds": _loss_against(
            "seconds", "seconds of training", "Training loss against the seconds of training, first seed"
        ),
        "step-time": _bars("step-time", "step_p50_seconds", 1e3, "steady step, p50 (ms)", "Steady step time, median"),
        "memory": _bars(
            "memory",
            "peak_resident_bytes",
            1e-6,
            "peak resident memory (MB)",
            "Peak resident memory of the run's process",
        ),
        "roofline": _roofline,
    }
)
