"""The rows of a benchmark grouped into lines: rows that differ in nothing but the seed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sonew_compiled.bench.labels import told_apart
from sonew_compiled.bench.rows import Row


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the table.

    Attributes:
      kind: the kind of its rows.
      settings: the settings that its rows share, all but the seed.
      machine: the name of its machine; empty if all lines are of one.
      apart: the settings, in words, that tell it from lines with the same label.
      rows: one row for each seed, including those that failed.
    """

    kind: str
    settings: dict[str, Any]
    machine: str = ""
    apart: tuple[str, ...] = ()
    rows: tuple[Row, ...]

    @property
    def good(self) -> list[Row]:
        """The rows that did not fail."""
        return [row for row in self.rows if row.get("error") is None]

    @property
    def label(self) -> str:
        """The line in a few words."""
        return f"{self.run}, {self.machine}" if self.machine else self.run

    @property
    def run(self) -> str:
        """The line in a few words, without the machine."""
        words = [self.optimizer, *self.step, self.settings["precision"]]
        if self.settings["target"] != "cpu":
            words.append(self.settings["target"])
        if self.settings["device"] not in ("", "local-task"):
            words.append(self.settings["device"])
        if self.kind not in ("train", "time"):
            words.append(self.kind)
        return ", ".join((" ".join(words), *self.apart))

    @property
    def optimizer(self) -> str:
        """The name of its optimizer."""
        return str(self.settings["optimizer"]["name"])

    @property
    def step(self) -> list[str]:
        """What a step does besides its optimizer, in words."""
        given = self.settings.get("step", {}).items()
        return [f"{key} {' '.join(value) if isinstance(value, list) else value}" for key, value in given]

    def median(self, key: str) -> float | None:
        """The median of a number over the seeds; None if no row has it."""
        values = [row[key] for row in self.good if row.get(key) is not None]
        return statistics.median(values) if values else None


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """The rows grouped into lines, in the order of their first rows."""
    names = machine_names(rows)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        key = json.dumps([row["kind"], without_seed(row), row["machine_id"]], sort_keys=True)
        groups.setdefault(key, []).append(row)
    lines = [
        Line(
            kind=group[0]["kind"],
            settings=without_seed(group[0]),
            machine=names[group[0]["machine_id"]] if len(names) > 1 else "",
            rows=tuple(group),
        )
        for group in groups.values()
    ]
    apart = told_apart([line.label for line in lines], [line.settings for line in lines])
    return [replace(line, apart=words) for line, words in zip(lines, apart, strict=True)]


def without_seed(row: Row) -> dict[str, Any]:
    """The settings of a row, all but the seed."""
    return {key: value for key, value in row["settings"].items() if key != "seed"}


def machine_names(rows: Sequence[Row]) -> dict[str, str]:
    """The name of each machine by its id: that of its host, else its processor, and the id if several share a name."""
    names: dict[str, str] = {}
    for row in rows:
        described = (row.get("machine") or {}).get("cpu", "")
        name = row.get("host") or described
        # A row that was only compiled has no description; another row of the machine may have one.
        if not names.get(row["machine_id"]):
            names[row["machine_id"]] = name
    said = list(names.values())
    return {key: f"{name} {key}".strip() if not name or said.count(name) > 1 else name for key, name in names.items()}
