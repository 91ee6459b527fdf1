"""The table and the picture of 100 epochs, from the rows of `sonew bench --preset paper`.

    python tools/paper_table.py

draws `docs/images/paper-100.svg`. The rows are in `docs/results/paper-100.jsonl`, and the seconds of an epoch on a
machine that does nothing else in `epoch-seconds.json`, since runs of hours share theirs.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from result_tables import RESULTS, epochs_searched, read_result, read_sorted, table

from sonew_compiled.bench._charts import Chart, Series
from sonew_compiled.bench._colours import colours
from sonew_compiled.bench._plots import draw

PICTURE = RESULTS.parent / "images/paper-100.svg"

Runs = Sequence[dict[str, Any]]
"""The rows of one optimizer under one policy, one for each seed."""

_GOAL = ("adam", "f32")


def runs() -> dict[tuple[str, str], Runs]:
    """The rows by optimizer and policy, in the order of their losses, the largest first."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in read_sorted("paper-100", key=lambda row: row["settings"]["seed"]):
        settings = row["settings"]
        assert (settings["epochs"], settings["data"], row["error"]) == (100, "mnist", None), settings
        found.setdefault((system(settings["optimizer"]), settings["precision"]), []).append(row)
    return dict(sorted(found.items(), key=lambda each: -mean(each[1], "train_loss")))


def system(optimizer: dict[str, Any]) -> str:
    """The optimizer's name, with the rows of its sketch if it has one."""
    return f"{optimizer['name']}({optimizer['rank']:g})" if optimizer.get("rank") else str(optimizer["name"])


def mean(rows: Runs, key: str) -> float:
    """The mean of a number over the seeds."""
    return statistics.fmean(row[key] for row in rows)


def markdown() -> str:
    """A line for each optimizer and policy."""
    found, seconds, searched = runs(), read_result("epoch-seconds"), epochs_searched()
    goal = found[_GOAL][0]["curve"][-1]["loss"]
    head = ["optimizer", "precision", "seeds", "searched", "learning rate", "train loss", "test loss", "seconds"]
    lines = []
    for (name, precision), rows in found.items():
        epochs = next((each["epoch"] for each in rows[0].get("curve", ()) if (each["loss"] or goal + 1) <= goal), None)
        second = seconds.get(f"{name}-{precision}")
        times = ["" if second is None or count is None else f"{second * count:.0f}" for count in (100, epochs)]
        rate = f"{rows[0]['settings']['optimizer']['learning_rate']:g}"
        losses = [_spread(rows, key) for key in ("train_loss", "test_loss")]
        epochs_spent = f"{searched[rows[0]['settings']['optimizer']['name']]:,} epochs"
        lines.append([name, f"`{precision}`", str(len(rows)), epochs_spent, rate, *losses, *times])
    return table([*head, "seconds to Adam's loss"], lines)


def _spread(rows: Runs, key: str) -> str:
    """The loss, or the mean over several seeds and the least and largest."""
    losses = [row[key] for row in rows]
    shown = f"{mean(rows, key):.2f}"
    return shown if len(losses) == 1 else f"{shown} ({min(losses):.2f} to {max(losses):.2f})"


def chart() -> Chart:
    """The loss in float32 against the seconds, of the first seed, without the first epoch, whose rate is 0."""
    found = {name: rows[0] for (name, precision), rows in runs().items() if precision == "f32"}
    seconds = read_result("epoch-seconds")
    timed = {name: seconds[key] for name in found if (key := f"{name}-f32") in seconds}
    series = [
        Series(
            label=name,
            line=place,
            colour=colour,
            points=tuple((point["epoch"] * timed[name], point["loss"]) for point in found[name]["curve"][1:]),
        )
        for place, (name, colour) in enumerate(zip(timed, colours(len(timed)), strict=True))
    ]
    return Chart(
        name="paper-100",
        title="100 epochs in float32, batch 1000",
        kind="lines",
        x="seconds",
        y="training loss (nats an image)",
        log_x=True,
        log_y=True,
        series=tuple(series),
    )


@click.command(help="Draw the loss against the seconds.")
@click.argument("path", type=click.Path(path_type=Path), default=PICTURE)
def main(path: Path) -> None:
    """The command line."""
    picture = chart()
    _, svg = draw([picture])[picture.name]
    path.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
