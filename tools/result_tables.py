"""The tables of results that are long: studies of settings, and runs under the policies of precision.

Their rows lie in docs/results/.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from sonew_compiled.bench import workers
from sonew_compiled.bench.goals import Goal
from sonew_compiled.bench.speed import goals_of

SPEED_FILES = {
    "speed-zen5": "Zen 5",
    "speed": "Zen 4",
    "speed-apart": "Zen 4, apart",
    "speed-xeon": "Xeon",
}
"""The files of the speed table, each with the head of its column."""

RESULTS = Path(__file__).parent.parent / "docs/results"


def studies(file: str) -> str:
    """The best trial of each study of a file, those with the least training loss first."""
    settings = {"learning_rate": "learning rate", "b1": "β1", "b2": "β2", "eps": "ε"}
    return table(
        ["optimizer", "trials", *settings.values(), "train loss", "test loss"],
        ([row["optimizer"], str(row["trials"]), *_best(row, settings), *_losses(row)] for row in read_sorted(file)),
    )


def small_studies() -> str:
    """The best trial of each study of the small model."""
    return table(
        ["optimizer", "precision", "trials", "learning rate", "ε", "train loss", "test loss"],
        (
            [
                *(row["optimizer"], f"`{row['precision']}`", str(row["trials"])),
                *(*_best(row, ("learning_rate", "eps")), *_losses(row, 4)),
            ]
            for row in read_sorted("tuned-small-20")
        ),
    )


def long_search() -> str:
    """The trials in which the settings for 100 epochs were found, by optimizer and length."""
    rows = read_sorted(
        "long-search", key=lambda row: (row["optimizer"], row["epochs"], row["train_loss"] or row["epoch_loss"])
    )
    lines = []
    for row in rows:
        ended = f"stopped at {row['stopped']}" if row["train_loss"] is None else f"{row['train_loss']:.2f}"
        names = ("flatten", "rank", "warmup_epochs")
        other = [f"{name.replace('_', ' ')} {row[name]}" for name in names if name in row]
        lines.append(
            [
                *(row["optimizer"], f"`{row['precision']}`", str(row["epochs"]), row.get("grafting", "")),
                " ".join(filter(None, [row.get("eps_mode"), _number(row.get("eps"))])),
                *(_number(row.get(name)) for name in ("b1", "b2", "learning_rate")),
                *(", ".join(other), ended, f"{row['test_loss']:.2f}" if "test_loss" in row else ""),
            ]
        )
    head = ["optimizer", "precision", "epochs", "grafting", "ε", "β1", "β2", "learning rate", "other", "train loss"]
    return table([*head, "test loss"], lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def epochs_searched() -> Counter[str]:
    """The epochs of all trials in which each optimizer's settings were found, of 20 epochs and of more."""
    spent: Counter[str] = Counter()
    for file in ("tuned-20", "adam-100", "long-search"):
        for row in _rows(file):
            spent[row["optimizer"]] += row.get("trials", 1) * row.get("stopped", row["epochs"])
    return spent


def speed() -> str:
    """The ratios of the speed table on each kind of processor; the first one's are held to the bounds."""
    measured = {head: read_result(file) for file, head in SPEED_FILES.items()}
    return _held(measured, goals_of(next(iter(measured.values()))))


def shared_steps() -> str:
    """The ratios of two workers that share a step."""
    return _held({"measured": read_result("workers")}, workers.GOALS)


def _held(measured: Mapping[str, dict[str, Any]], goals: Sequence[Goal]) -> str:
    """A column for each result, by its head; the first is held to the bounds."""
    rows = []
    for goal in goals:
        values = [each["ratios"].get(goal.key) for each in measured.values()]
        cells = ["" if value is None else f"{value:.3g}{goal.unit}" for value in values]
        if goal.is_met(values[0]) is False:
            cells[0] += ", missed"
        sign = "≥" if goal.at_least else "≤"
        bounds = ("" if bound is None else f"{sign} {bound:g}{goal.unit}" for bound in (goal.must, goal.aim))
        rows.append([goal.what, *cells, *bounds])
    return table(["what", *measured, "must", "aim"], rows)


def read_result(file: str) -> dict[str, Any]:
    """The object that a file has."""
    result: dict[str, Any] = json.loads((RESULTS / f"{file}.json").read_text(encoding="utf-8"))
    return result


def policies() -> str:
    """The losses under each policy of precision, and how long an epoch takes."""
    seconds = read_result("epoch-seconds")
    return table(
        ["optimizer", "policy", "learning rate", "train loss", "test loss", "seconds an epoch"],
        (
            [
                *(row["optimizer"], f"`{row['precision']}`", f"{row['learning_rate']:g}"),
                *(*_losses(row), f"{seconds[row['optimizer'] + '-' + row['precision']]:.1f}"),
            ]
            for row in sorted(read_sorted("precision-20"), key=lambda row: str(row["optimizer"]))
        ),
    )


def read_sorted(file: str, key: Callable[[dict[str, Any]], Any] = itemgetter("train_loss")) -> list[dict[str, Any]]:
    """The rows of a file, by their training loss or another key."""
    return sorted(_rows(file), key=key)


def _rows(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RESULTS / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()]


def _best(study: dict[str, Any], settings: Iterable[str]) -> list[str]:
    """The settings of a study's best trial; empty where the optimizer has none."""
    values = [study["best"].get(name) for name in settings]
    return ["" if value is None else f"{value:.3g}" for value in values]


def _losses(row: dict[str, Any], digits: int = 2) -> list[str]:
    return [f"{row[name]:.{digits}f}" for name in ("train_loss", "test_loss")]


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    rows = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows])
