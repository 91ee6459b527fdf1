"""`sonew bench merge`, `compare` and `export`: what is done with rows that have been measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sonew_compiled.cli import _options as options
from sonew_compiled.cli._say import note, output_options, print_json
from sonew_compiled.errors import UsageError, counted
from sonew_compiled.install import require

if TYPE_CHECKING:
    from sonew_compiled.bench.rows import Row

_METRICS = ("step", "first-step", "seconds", "update", "train-loss", "test-loss", "memory", "compile")

_sources = click.argument("sources", type=options.PATH, nargs=-1, required=True, metavar="FOLDER...")


@click.command("merge")
@_sources
@click.option("-o", "--output", type=options.PATH, required=True, help="The folder of the merged benchmark.")
@output_options
def merge_command(sources: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Put the rows of several benchmarks into one.

    This is for the rows of several machines; the folder receives their report. FOLDER is a benchmark's folder, or its
    rows.jsonl. No row is lost: a row that is in several is kept once. The table and the plots have a line for each
    machine. `sonew bench -o OUTPUT --resume` adds the rows of this machine.

    \b
    Examples:
      sonew bench merge laptop server -o both
    """
    require("bench", purpose="sonew bench merge", modules=("jinja2", "matplotlib", "plotly"))
    from sonew_compiled.bench.report import write_report
    from sonew_compiled.bench.rows import check_count, check_new, latest, merged, write_rows
    from sonew_compiled.runtime.owner import owned

    files = _read(sources)
    rows = merged([rows for _, rows in files])
    check_count(rows, "the merged benchmark")
    with owned(output):
        if output.resolve() not in [source.resolve() for source in sources]:
            check_new(output, resume=False)
        write_rows(output, rows)
        write_report(latest(rows), output)
    machines = len({row["machine_id"] for row in rows})
    if as_json:
        print_json({"output": output, "rows": len(rows), "machines": machines})
    note(f"wrote {output}/report.html: {counted(len(rows), 'row')} of {counted(machines, 'machine')}")


@click.command("compare")
@_sources
@click.option("--metric", type=click.Choice(_METRICS), default=_METRICS[0], show_default=True, help="What to compare.")
@output_options
def compare_command(sources: tuple[Path, ...], metric: str, as_json: bool) -> None:
    """Compare benchmarks, by machine and run by run.

    FOLDER is a benchmark's folder, or its rows.jsonl. The baseline is the first machine of the first FOLDER; one merged
    folder is compared machine by machine. A ratio above 1 is more time, memory or loss than the baseline's. Beside it
    are the 5th and 95th percentile of the ratios of all parts of the run, or of its seeds.

    \b
    Examples:
      sonew bench compare laptop server
      sonew bench compare before after --metric memory
    """
    from sonew_compiled.bench.compare import METRICS, compare, differing_versions, markdown, means, sides_of
    from sonew_compiled.bench.rows import finite

    sides = sides_of(_read(sources))
    if len(sides) < 2:
        raise UsageError(f"{sources[0]} has the rows of one machine: give a second FOLDER to compare it with")
    found, lonely = compare(sides, METRICS[metric])
    if not found:
        raise UsageError(
            f"{sides[0].name} has no run with a value of --metric {metric} in common with the others: "
            "compare benchmarks of the same model, optimizers and precisions"
        )
    if as_json:
        geometric = [{"baseline": a, "other": b, "ratio": ratio} for (a, b), ratio in means(found).items()]
        result = {"metric": metric, "runs": [each.to_json() for each in found], "means": geometric}
        print_json(finite(result))
    else:
        click.echo(markdown(found, METRICS[metric]), nl=False)
    if lonely:
        note(f"{counted(lonely, 'run')} not compared: {sides[0].name} has no such run")
    for name, versions in differing_versions(sides).items():
        note(f"{name} differs: {', '.join(versions)}")


@click.command("export")
@_sources
@click.option(
    "-o", "--output", type=options.PATH, required=True, help="File to write; .csv or .parquet names its format."
)
@output_options
def export_command(sources: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Write the rows as CSV or Parquet.

    FOLDER is a benchmark's folder, or its rows.jsonl. There is a line for each row, also for those that a later row has
    replaced, and a column for each value, such as settings.optimizer.name.

    \b
    Examples:
      sonew bench export laptop server -o rows.parquet
    """
    from sonew_compiled.bench.export import export
    from sonew_compiled.bench.rows import merged

    rows = merged([rows for _, rows in _read(sources)])
    export(rows, output)
    if as_json:
        print_json({"output": output, "rows": len(rows)})
    note(f"wrote {output}: {counted(len(rows), 'row')}")


def _read(sources: Sequence[Path]) -> list[tuple[str, list[Row]]]:
    """The name and the rows of each source, of which each must have some."""
    from sonew_compiled.bench.rows import read_rows

    files = [(str(source), read_rows(source)) for source in sources]
    for name, rows in files:
        if not rows:
            raise UsageError(f"{name} has no rows of a benchmark: give a folder that `sonew bench` wrote")
    return files
