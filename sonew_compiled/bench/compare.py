"""`sonew bench compare`: the ratios of one machine, or one measurement, to another."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from sonew_compiled.bench._lines import Line, lines_of, machine_names
from sonew_compiled.bench.rows import Row, latest


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Something to compare.

    Attributes:
      what: its description.
      key: the key of a row with its value.
      parts: the key of a row with a list of values of parts of the run, from which the spread is seen.
      scale: the factor from the row's unit to `unit`.
      unit: the unit of the table.
    """

    what: str
    key: str
    parts: str = ""
    scale: float = 1.0
    unit: str = ""

    def samples(self, line: Line) -> list[float]:
        """The values of a line: those of parts of its runs if it has them, else one for each seed."""
        parts = [value for row in line.good for value in row.get(self.parts, ())] if self.parts else []
        return parts or [row[self.key] for row in line.good if row.get(self.key) is not None]


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "step": Metric(
            what="steady step", key="step_p50_seconds", parts="step_stretches_seconds", scale=1e3, unit="ms"
        ),
        "first-step": Metric(what="first step", key="first_step_seconds", scale=1e3, unit="ms"),
        "seconds": Metric(what="training", key="seconds", unit="s"),
        "update": Metric(what="update alone", key="update_seconds", scale=1e3, unit="ms"),
        "train-loss": Metric(what="training loss", key="train_loss"),
        "test-loss": Metric(what="test loss", key="test_loss"),
        "memory": Metric(what="peak resident memory", key="peak_resident_bytes", scale=1e-6, unit="MB"),
        "compile": Metric(what="compiling", key="compile_seconds", unit="s"),
    }
)
"""The metrics that can be compared, by their names for `--metric`."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One machine's rows in one of the files.

    Attributes:
      name: its name in the table.
      rows: the last row of each kind and settings.
    """

    name: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A run on one side against the same run on the first side.

    Attributes:
      run: the run in a few words.
      baseline: where it was measured first: side, and target and device if they are not the ordinary ones.
      other: where it was measured beside.
      before: the median on the baseline, in the unit of the metric.
      after: the median on the other.
      ratio: `after` over `before`.
      low, high: the 5th and the 95th percentile of the ratios of every value of the other to every value of the
        baseline; None if each has one value only.
    """

    run: str
    baseline: str
    other: str
    before: float
    after: float
    ratio: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def sides_of(files: Sequence[tuple[str, Sequence[Row]]]) -> list[Side]:
    """A side for each machine of each file, in order.

    Args:
      files: the name and the rows of each file. A machine that is in several has the name of the file beside its own.
    """
    names = machine_names([row for _, rows in files for row in rows])
    found = [
        (source, each, rows) for source, rows in files for each in dict.fromkeys(row["machine_id"] for row in rows)
    ]
    often = [each for _, each, _ in found]
    return [
        Side(
            name=f"{names[each]} in {source}" if often.count(each) > 1 else names[each],
            rows=tuple(latest([row for row in rows if row["machine_id"] == each])),
        )
        for source, each, rows in found
    ]


def compare(sides: Sequence[Side], metric: Metric) -> tuple[list[Comparison], int]:
    """Each run of the later sides against the same run of the first side.

    The same run has the same kind and settings, but perhaps another target and device: those of the first side are the
    same ones if it has them, else the first that it has. Only rows of seeds that both have are compared, if there are
    any.

    Returns:
      The comparisons, and the number of the later sides' runs that the first side does not have.
    """
    first: dict[str, list[Line]] = {}
    for line in lines_of(sides[0].rows):
        if metric.samples(line):
            first.setdefault(_key(line), []).append(line)
    lines = [(side, line) for side in sides[1:] for line in lines_of(side.rows) if metric.samples(line)]
    found = []
    for side, line in lines:
        if candidates := first.get(_key(line), []):
            base = max(candidates, key=lambda each: _place(each) == _place(line))
            found.append(_comparison(sides[0].name, base, side.name, line, metric))
    return found, len(lines) - len(found)


def _of_common_seeds(base: Line, line: Line, metric: Metric) -> tuple[Line, Line]:
    """Both lines with their rows of the seeds that both have, or with all rows if they have none in common."""
    kept = [
        replace(one, rows=tuple(row for row in one.rows if row["settings"].get("seed") in _seeds(other)))
        for one, other in ((base, line), (line, base))
    ]
    return (kept[0], kept[1]) if all(map(metric.samples, kept)) else (base, line)


def _seeds(line: Line) -> set[int]:
    return {row["settings"].get("seed") for row in line.rows}


def _key(line: Line) -> str:
    settings = {key: value for key, value in line.settings.items() if key not in ("target", "device")}
    return json.dumps([line.kind, settings], sort_keys=True)


def _place(line: Line) -> str:
    return " on ".join(filter(None, (line.settings["target"], line.settings["device"])))


def _comparison(baseline: str, base: Line, other: str, line: Line, metric: Metric) -> Comparison:
    is_here = _place(base) == _place(line)
    words = line.run if is_here else ", ".join((f"{line.optimizer} {line.settings['precision']}", *line.apart))
    common = _of_common_seeds(base, line, metric)
    before, after = map(metric.samples, common)
    old, new = statistics.median(before), statistics.median(after)
    low, high = _spread(before, after) if len(before) > 1 or len(after) > 1 else (None, None)
    return Comparison(
        run=words if _seeds(common[0]) & _seeds(common[1]) else f"{words}, other seeds",
        baseline=baseline if is_here else f"{baseline}, {_place(base)}",
        other=other if is_here else f"{other}, {_place(line)}",
        before=old * metric.scale,
        after=new * metric.scale,
        ratio=_ratio(new, old),
        low=low,
        high=high,
    )


def _spread(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    ratios = sorted(_ratio(b, a) for a, b in itertools.product(before, after))
    last = len(ratios) - 1
    return ratios[math.floor(0.05 * last)], ratios[math.ceil(0.95 * last)]


def _ratio(new: float, old: float) -> float:
    return new / old if old else math.nan


def means(comparisons: Sequence[Comparison]) -> dict[tuple[str, str], float]:
    """The geometric mean of the ratios of each baseline and other, where there are several and all are positive."""
    groups: dict[tuple[str, str], list[float]] = {}
    for each in comparisons:
        groups.setdefault((each.baseline, each.other), []).append(each.ratio)
    return {
        key: statistics.geometric_mean(ratios)
        for key, ratios in groups.items()
        if len(ratios) > 1 and all(ratio > 0 for ratio in ratios)
    }


def markdown(comparisons: Sequence[Comparison], metric: Metric) -> str:
    """The comparisons as a table."""
    unit = f" ({metric.unit})" if metric.unit else ""
    lines = [f"| {metric.what} of | baseline | other | baseline's{unit} | other's{unit} | ratio | 5 to 95 % |"]
    lines.append("|---|---|---|---|---|---|---|")
    for each in comparisons:
        spread = "one value each" if each.low is None else f"{each.low:.3g} to {each.high:.3g}"
        cells = (each.run, each.baseline, each.other, f"{each.before:.4g}", f"{each.after:.4g}", f"{each.ratio:.3f}")
        lines.append("| " + " | ".join((*(cell.replace("|", "/") for cell in cells), spread)) + " |")
    for (baseline, other), ratio in means(comparisons).items():
        names = " | ".join(name.replace("|", "/") for name in (baseline, other))
        lines.append(f"| all (geometric mean) | {names} | | | {ratio:.3f} | |")
    return "\n".join(lines) + "\n"


def differing_versions(sides: Sequence[Side]) -> dict[str, list[str]]:
    """The packages that the sides do not have in one version, with the versions in order."""
    found: dict[str, dict[str, None]] = {}
    for side in sides:
        for row in side.rows:
            for name, version in (row.get("versions") or {}).items():
                found.setdefault(name, {})[version] = None
    return {name: list(versions) for name, versions in found.items() if len(versions) > 1}
