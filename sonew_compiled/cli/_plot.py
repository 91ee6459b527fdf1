"""`sonew plot`: the curves of runs, or the trials of studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from sonew_compiled.cli import _options as options
from sonew_compiled.cli._say import note, output_options, print_json
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.install import require

_LOSS = "loss"
Rows = Sequence[Mapping[str, float]]


@click.command("plot", short_help="Draw the curves of runs, or the trials of studies.")
@click.argument("runs", nargs=-1, type=options.PATH, required=True, metavar="RUN...")
@click.option(
    "-o", "--output", type=options.PATH, default=Path("loss.png"), show_default=True, help="A .png, .svg or .pdf."
)
@click.option(
    "--metric",
    default=_LOSS,
    show_default=True,
    help="Number to draw: loss, a metric of the model such as accuracy, learning_rate or examples_per_second.",
)
@output_options
def plot_command(runs: tuple[Path, ...], output: Path, metric: str, as_json: bool) -> None:
    """Draw the loss of one or more runs, or another number, against the epoch.

    The training loss is drawn as a line, and what was measured on the test split as a dashed one of the same color.
    RUN may be a study of sonew tune: its folder, its best.json, or a .jsonl file with a best.json in each line. Then
    the loss of each trial is drawn against each setting.

    \b
    Examples:
      sonew plot sonew-run
      sonew plot runs/tridiag runs/adam -o comparison.svg
      sonew plot runs/tridiag runs/adam --metric accuracy -o accuracy.png
      sonew plot sonew-tune -o study.png
    """
    if output.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"cannot draw {output}; give a name that ends in .png, .svg or .pdf")
    require("plot", purpose="sonew plot")
    from sonew_compiled.bench.studies import is_study
    from sonew_compiled.runtime.metrics import METRICS_FILE

    if studies := [path for path in runs if path.name != METRICS_FILE and is_study(path)]:
        if len(studies) < len(runs):
            other = next(path for path in runs if path not in studies)
            raise UsageError(f"{studies[0]} is a study and {other} is none; draw studies and runs apart")
        _plot_studies(studies, output, as_json=as_json)
        return
    from sonew_compiled import figures
    from sonew_compiled.runtime import read_metrics

    metric = metric.removeprefix("test_")
    runs = tuple(run.parent if run.name == METRICS_FILE else run for run in runs)
    curves: dict[Path, Rows] = {run: read_metrics(run) for run in runs}
    for run, rows in curves.items():
        if not all({"epoch", "loss"} <= row.keys() for row in rows):
            raise SonewError(f"{run / METRICS_FILE} has lines without an epoch and a loss; give the folder of a run")
        if not rows:
            raise SonewError(f"{run} holds no {METRICS_FILE} with a finished epoch; give the --output of a `sonew run`")
        if not any(_points(rows, key) for key in _keys(metric)):
            raise UsageError(f"{run} has no {metric}; give --metric {', '.join(_metrics_of(rows))}")

    digits = "2f" if metric == _LOSS else "4g"
    figure, axes = figures.pyplot().subplots(figsize=(6.4, 3.6), layout="constrained")
    for path_name, rows in zip(figures.distinct_names(list(curves)), curves.values(), strict=True):
        name, color = figures.legend_text(path_name), None
        drawn_of_run = {key: points for key in _keys(metric) if (points := _points(rows, key))}
        for key, points in drawn_of_run.items():
            split = "test" if key.startswith("test_") else "train" if len(drawn_of_run) > 1 else ""
            color = _draw(axes, points, name=name, split=split, digits=digits, color=color)
    trained = [_trained(run) for run in runs]
    units = {each.get("unit", "") for each in trained} if metric == _LOSS else {""}
    unit = units.pop() if len(units) == 1 else ""
    what = metric.replace("_", " ")
    has_test = any(_points(rows, f"test_{metric}") for rows in curves.values())
    label = what if has_test or metric != _LOSS else f"training {what}"
    title = _title(trained, what)
    axes.set(
        title=figures.legend_text(title),
        xlabel="epoch",
        ylabel=figures.legend_text(f"{label} ({unit})" if unit else label),
    )
    axes.xaxis.get_major_locator().set_params(integer=True)
    drawn = [value for rows in curves.values() for key in _keys(metric) for _, value in _points(rows, key)]
    if metric == _LOSS and min(drawn) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(which="both", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figures.save(figure, output)
    if as_json:
        print_json({"output": output, "metric": metric, "runs": [str(run) for run in runs]})
    note(f"wrote {output}")


def _plot_studies(paths: Sequence[Path], output: Path, *, as_json: bool) -> None:
    from sonew_compiled.bench.studies import read_studies
    from sonew_compiled.bench.study_picture import draw_studies
    from sonew_compiled.figures import distinct_names

    named = {}
    for name, path in zip(distinct_names(paths), paths, strict=True):
        read = read_studies(path)
        for index, study in enumerate(read):
            place = f"{name} line {index + 1}" if len(read) > 1 else name
            named[f"{study.optimizer}, {place}"] = study
    draw_studies(named, output)
    if as_json:
        print_json({"output": output, "studies": list(named)})
    note(f"wrote {output}")


def _keys(metric: str) -> tuple[str, str]:
    """The names in `metrics.jsonl` of a number over the training and over the test split."""
    return metric, f"test_{metric}"


def _metrics_of(rows: Rows) -> list[str]:
    """The numbers that a run has, by the names that `--metric` takes."""
    names = {name.removeprefix("test_") for row in rows for name in row}
    return [_LOSS, *sorted(names - {"step", "epoch", "seconds", _LOSS})]


def _points(rows: Rows, key: str) -> list[tuple[float, float]]:
    """The epochs at which there is a number, and the number; null stands for one that is not finite."""
    return [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]


def _draw(axes: Any, points: list[tuple[float, float]], *, name: str, split: str, digits: str, color: Any) -> Any:
    """Draws a curve with its last value in the legend, and returns its color."""
    linestyle = "--" if split == "test" else "-"
    style = {"linestyle": linestyle, "marker": "o" if len(points) == 1 else None, "color": color}
    label = f"{name}{split and f', {split}'} ({points[-1][1]:.{digits}})"
    (line,) = axes.plot(*zip(*points, strict=True), label=label, **style)
    if len(points) == 1:  # one epoch is a point: its level can be compared with other curves
        axes.axhline(points[0][1], color=line.get_color(), linestyle="--")
    return line.get_color()


def _trained(run: Path) -> Mapping[str, str]:
    """What the header of a run's latest checkpoint says; empty without one."""
    from sonew_compiled.runtime.checkpoint import find_checkpoint, read_checkpoint_metadata

    try:
        return read_checkpoint_metadata(find_checkpoint(run))
    except SonewError:
        return {}


def _title(trained: Sequence[Mapping[str, str]], what: str) -> str:
    """The number that is drawn, and of a single run the model, the optimizer and the precision."""
    if len(trained) > 1 or "precision" not in trained[0]:  # older checkpoints do not name it
        return f"{what} by epoch"
    return "{} of {model} by {optimizer}, {precision}".format(what, **trained[0])
