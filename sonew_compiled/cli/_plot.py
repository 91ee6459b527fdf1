"""`sonew plot`: the loss curves of runs."""

from __future__ import annotations

from pathlib import Path

import click

from sonew_compiled.cli import _options as options
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.install import require


@click.command("plot", short_help="Draw the training loss of one or more runs.")
@click.argument("runs", nargs=-1, type=options.PATH, required=True, metavar="RUN...")
@click.option(
    "-o", "--output", type=options.PATH, default=Path("loss.png"), show_default=True, help="A .png, .svg or .pdf."
)
def plot_command(runs: tuple[Path, ...], output: Path) -> None:
    """Draw the training loss of one or more runs against the epoch.

    \b
    Examples:
      sonew plot sonew-run
      sonew plot runs/tridiag runs/adam -o comparison.svg
    """
    if output.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"cannot draw {output}; give a name that ends in .png, .svg or .pdf")
    require("plot", "sonew plot")
    from sonew_compiled import figures
    from sonew_compiled.runtime import read_metrics
    from sonew_compiled.runtime.metrics import METRICS_FILE

    curves = {run: read_metrics(run) for run in runs}
    for run, rows in curves.items():
        if not all({"epoch", "loss"} <= row.keys() for row in rows):
            raise SonewError(f"{run / METRICS_FILE} has lines without an epoch and a loss; give the folder of a run")
        if not rows:
            raise SonewError(f"{run} holds no {METRICS_FILE} with a finished epoch; give the --output of a `sonew run`")

    figure, axes = figures.pyplot().subplots(figsize=(6.4, 3.6), layout="constrained")
    for name, rows in zip(figures.distinct_names(list(curves)), curves.values(), strict=True):
        label = figures.legend_text(f"{name} ({rows[-1]['loss']:.2f})")
        marker = "o" if len(rows) == 1 else None
        (line,) = axes.plot([row["epoch"] for row in rows], [row["loss"] for row in rows], label=label, marker=marker)
        if marker:  # one epoch is a point: its level can be compared with other curves
            axes.axhline(rows[0]["loss"], color=line.get_color(), linestyle="--")
    units = {_unit_of(run) for run in runs}
    unit = units.pop() if len(units) == 1 else ""
    axes.set(xlabel="epoch", ylabel=f"training loss ({figures.legend_text(unit)})" if unit else "training loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if all(row["loss"] > 0 for rows in curves.values() for row in rows):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(which="both", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figures.save(figure, output)
    options.say(f"wrote {output}")


def _unit_of(run: Path) -> str:
    """The unit of a run's loss, where the run has a bundle of its own that says it."""
    from sonew_compiled.runtime import open_bundle
    from sonew_compiled.runtime.folder import RunFolder

    try:
        return open_bundle(RunFolder(run).bundle).manifest.unit
    except SonewError:
        return ""
