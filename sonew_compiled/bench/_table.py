"""The rows of a benchmark as a table, with a line for each setting and medians over its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sonew_compiled.bench._lines import Line, lines_of
from sonew_compiled.bench._shares import REASONS
from sonew_compiled.bench.labels import optimizer_in_words
from sonew_compiled.bench.rows import Row
from sonew_compiled.errors import on_one_line


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the table.

    Attributes:
      title: its head.
      cell: the text of a line.
      is_minor: whether the page shows it only when asked.
    """

    title: str
    cell: Callable[[Line], str]
    is_minor: bool = False


def _number(key: str, form: str = "{:.3g}", scale: float = 1.0) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        value = line.median(key)
        return "" if value is None else form.format(value * scale)

    return cell


def _share(key: str) -> Callable[[Line], str]:
    """The cell of a share, with the number of its reason if it is above 1."""

    def cell(line: Line) -> str:
        reasons = [row["share_reasons"][key] for row in line.good if key in row.get("share_reasons", ())]
        shown = _number(key, "{:.0f} %", 100)(line)
        return f"{shown} ({REASONS.index(reasons[0]) + 1})" if reasons and reasons[0] in REASONS else shown

    return cell


def notes(rows: Sequence[Row]) -> list[str]:
    """Caveats of the rows, and the meanings of the numbers in brackets in the table."""
    caveats = dict.fromkeys(row["caveat"] for row in rows if row.get("caveat"))
    used = {reason for row in rows for reason in row.get("share_reasons", {}).values()}
    return [*caveats, *(f"({number}) {reason}" for number, reason in enumerate(REASONS, 1) if reason in used)]


def _settings_of(line: Line) -> str:
    return optimizer_in_words(line.settings["optimizer"]).replace("|", "/")


def _to_loss(line: Line) -> str:
    goals: dict[float, list[tuple[float, float]]] = {}
    for row in line.good:
        for each in row.get("to_loss") or []:
            reached = (math.inf, math.inf) if each["steps"] is None else (each["steps"], each["seconds"])
            goals.setdefault(each["loss"], []).append(reached)
    words = []
    for goal, all_of in goals.items():
        # A run that never came there is behind all others.
        steps, seconds = (statistics.median(column) for column in zip(*all_of, strict=True))
        if math.isfinite(steps):
            words.append(f"{goal:g}: {steps:,.0f} / {seconds:.3g} s")
        else:
            words.append(f"{goal:g}: not reached")
    return "; ".join(words)


def _warnings(line: Line) -> str:
    said = dict.fromkeys(warning for row in line.good for warning in row.get("warnings", ()))
    return on_one_line("; ".join(said)).replace("|", "/")


def _first_error(line: Line) -> str:
    first = next((row["error"] for row in line.rows if row.get("error") is not None), "")
    return on_one_line(first).replace("|", "/")


_COLUMNS = (
    Column(title="optimizer", cell=lambda line: ", ".join((line.optimizer, *line.apart)).replace("|", "/")),
    Column(title="machine", cell=lambda line: line.machine.replace("|", "/")),
    Column(title="settings", is_minor=True, cell=_settings_of),
    Column(title="step", cell=lambda line: ", ".join(line.step).replace("|", "/")),
    Column(title="precision", cell=lambda line: line.settings["precision"]),
    Column(title="target", is_minor=True, cell=lambda line: line.settings["target"]),
    Column(title="device", is_minor=True, cell=lambda line: line.settings["device"]),
    Column(title="what", cell=lambda line: line.kind),
    Column(title="batch", is_minor=True, cell=lambda line: str(line.settings["batch_size"])),
    Column(title="seeds", is_minor=True, cell=lambda line: str(len(line.good))),
    Column(title="train loss", cell=_number("train_loss", "{:.2f}")),
    Column(title="test loss", cell=_number("test_loss", "{:.2f}")),
    Column(title="seconds", cell=_number("seconds", "{:.1f}")),
    Column(title="to loss: steps / time", cell=_to_loss),
    Column(title="first step ms", is_minor=True, cell=_number("first_step_seconds", "{:.1f}", 1e3)),
    Column(title="step p50 ms", cell=_number("step_p50_seconds", "{:.1f}", 1e3)),
    Column(title="step p95 ms", is_minor=True, cell=_number("step_p95_seconds", "{:.1f}", 1e3)),
    Column(title="compiled ÷ it", cell=_number("ratio", "{:.3f}")),
    Column(title="optimizer's share", cell=_number("optimizer_share", "{:.0f} %", 100)),
    Column(title="GFLOP/s", is_minor=True, cell=_number("gflops", "{:.1f}")),
    Column(title="of peak", cell=_share("flops_share")),
    Column(title="update GB/s", is_minor=True, cell=_number("gbps", "{:.1f}")),
    Column(title="of copy", cell=_share("bandwidth_share")),
    Column(title="state B/parameter", is_minor=True, cell=_number("state_bytes_per_parameter", "{:.1f}")),
    Column(title="peak MB", cell=_number("peak_resident_bytes", "{:.0f}", 1e-6)),
    Column(title="compile s", cell=_number("compile_seconds", "{:.1f}")),
    Column(title="artifact kB", is_minor=True, cell=_number("artifact_bytes", "{:.0f}", 1e-3)),
    Column(title="code kB", is_minor=True, cell=_number("code_bytes", "{:.0f}", 1e-3)),
    Column(title="registers", is_minor=True, cell=_number("registers", "{:.0f}")),
    Column(title="spilled B", is_minor=True, cell=_number("spilled_bytes", "{:.0f}")),
    Column(title="warnings", cell=_warnings),
    Column(title="error", cell=_first_error),
)


def table(rows: Sequence[Row]) -> tuple[list[Column], list[list[str]]]:
    """The columns and the cells of each line, without columns that no row fills."""
    lines = lines_of(rows)
    filled = [(column, [column.cell(line) for line in lines]) for column in _COLUMNS]
    kept = [(column, cells) for column, cells in filled if any(cells)]
    return [column for column, _ in kept], [list(cells) for cells in zip(*(cells for _, cells in kept), strict=True)]


def markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown, and the notes below it."""
    columns, lines = table(rows)
    head = ["| " + " | ".join(column.title for column in columns) + " |", "|" + "---|" * len(columns)]
    below = [f"\n{note}" for note in notes(rows)]
    return "\n".join([*head, *("| " + " | ".join(cells) + " |" for cells in lines), *below]) + "\n"
