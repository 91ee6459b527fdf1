"""`sonew bench`."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sonew_compiled.cli import _options as options
from sonew_compiled.cli._bench_rows import compare_command, export_command, merge_command
from sonew_compiled.cli._sections import SectionedGroup
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.install import require
from sonew_compiled.presets import PRECISIONS, SETTINGS
from sonew_compiled.setting import flag_of

if TYPE_CHECKING:
    from sonew_compiled.bench.suites import Suite

DEFAULT_OUTPUT = Path("sonew-bench")
_LONGEST_HOST = 100
_PRESETS = ("quick", "paper", "devices", "precision", "speed", "workers", "models")
# The options that the presets of ratios do not take. They take --pairs, --model and --batch-size, and but for `models`
# --data.
_NOT_FOR_SPEED = {
    "optimizers": "--optimizer",
    "precisions": "--precision",
    "targets": "--target",
    "device": "--device",
    "seeds": "--seed",
    "learning_rate": "--learning-rate",
    "epochs": "--epochs",
    "steps": "--steps",
    "versus": "--vs",
    "target_losses": "--target-loss",
    "resume": "--resume",
    "data_dir": "--data-dir",
    **{name: flag_of(name) for name in SETTINGS},
}


@click.group("bench", cls=SectionedGroup, invoke_without_command=True)
@click.option(
    "-o", "--output", type=options.PATH, default=DEFAULT_OUTPUT, show_default=True, help="The benchmark's folder."
)
@click.option(
    "--preset",
    type=click.Choice(_PRESETS),
    default=_PRESETS[0],
    show_default=True,
    help="The suite to run; the options below replace parts of it.",
)
@click.option(
    "--model", help=f"{', '.join(options.MODELS)}, or package.module:attribute of yours.  [default: the preset's]"
)
@click.option(
    "--optimizer",
    "optimizers",
    type=options.OPTIMIZER,
    metavar="NAME",
    multiple=True,
    help=f"{options.OPTIMIZER_NAMES}; repeatable.",
)
@click.option("--precision", "precisions", type=click.Choice(PRECISIONS), multiple=True, help="Repeatable.")
@click.option("--target", "targets", multiple=True, help="Target to compile for, or `here` for all; repeatable.")
@click.option("--device", help="Device to run on.  [default: the first that runs the target]")
@click.option("--seed", "seeds", type=click.IntRange(0, 2**31 - 1), multiple=True, help="Repeatable.")
@click.option("--learning-rate", type=options.RATE, help="Peak learning rate of every run.")
@options.setting_options
@options.batch_size_option
@click.option("--epochs", type=click.IntRange(min=1), help="Train for so many epochs.")
@click.option("--steps", type=click.IntRange(min=1), help="Time so many steps, without training.")
@click.option("--data", help="The data set, as for `sonew run`.")
@click.option("--data-dir", type=options.PATH, help="Folder with the files of `mnist`.")
@click.option(
    "--target-loss",
    "target_losses",
    type=float,
    multiple=True,
    help="Record when training first reaches this loss; repeatable.",
)
@click.option(
    "--vs",
    "versus",
    type=click.Choice(["jax", "torch"]),
    multiple=True,
    help="Time the step of jax.jit, or of PyTorch, in turns with the compiled one; repeatable.",
)
@click.option(
    "--pairs", type=click.IntRange(min=1), default=20, show_default=True, help="Pairs of interleaved measurements."
)
@click.option("--resume", is_flag=True, help="Resume the benchmark in the folder; finished runs are not repeated.")
@click.option(
    "--host",
    help="The name of this machine in the rows and the report; '' leaves it out.  [default: its host name]",
)
@options.json_option
@click.pass_context
def bench_command(
    context: click.Context, /, output: Path, preset: str, host: str | None, as_json: bool, **what: Any
) -> None:
    """Compare optimizers, precisions and devices by training with each.

    Writes a line to rows.jsonl when a run ends, then table.md, plots and report.html. The row of a run that fails holds
    its error. docs/reference/benchmarks.md says what each column means.

    \b
    Examples:
      sonew bench                                     a small comparison, on the embedded digits
      sonew bench --preset paper -o paper --resume    the paper's table, resumed where it stopped
      sonew bench --optimizer adam --optimizer tridiag-sonew --steps 20 --vs jax
      sonew bench --preset speed --json > speed.json
      sonew bench --preset workers --pairs 30         what micro-batches and a second worker bring
      sonew bench --preset models                     the steps of several models against jax.jit's
      sonew bench compare laptop server               the rows of two machines, run by run
    """
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    from sonew_compiled.runtime.owner import owned

    require("bench", "sonew bench")  # also what it draws with, before hours of training and not after
    what["host"] = (platform.node() if host is None else host)[:_LONGEST_HOST] or None
    with owned(output):
        if preset in ("speed", "workers", "models"):
            _speed(output, preset, what, as_json=as_json)
        else:
            _compare(output, preset, what, as_json=as_json)


bench_command.add_command(merge_command)
bench_command.add_command(compare_command)
bench_command.add_command(export_command)


def _refuse_options(context: click.Context) -> None:
    """Refuses options before the name of a command that does not take them."""
    for parameter in context.command.params:
        if context.get_parameter_source(str(parameter.name)) is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{parameter.opts[-1]} belongs to a measurement, and {context.invoked_subcommand} makes none: "
                "leave it out, or give it after the name of the command"
            )


def _compare(output: Path, name: str, what: dict[str, Any], *, as_json: bool) -> None:
    from sonew_compiled.bench.benchmark import run_plan
    from sonew_compiled.bench.plan import Plan, make_runs, places_of
    from sonew_compiled.bench.report import write_report
    from sonew_compiled.bench.suites import SUITES
    from sonew_compiled.runtime import load_dataset
    from sonew_compiled.runtime.shown import quoted

    suite = _replaced(SUITES[name], what)
    options.load_model(suite.model)
    load_dataset(suite.data, data_dir=what["data_dir"])
    plan = Plan(
        runs=make_runs(
            model=suite.model,
            optimizers=suite.optimizers,
            precisions=suite.precisions,
            places=places_of(suite.targets, what["device"]),
            batch_size=what["batch_size"],
            seeds=suite.seeds,
            epochs=suite.epochs,
            steps=suite.steps,
            data=suite.data,
            data_dir=what["data_dir"],
            learning_rate=what["learning_rate"],
            settings={name: what[name] for name in SETTINGS},
        ),
        target_losses=suite.target_losses,
        update=suite.update,
        versus=what["versus"],
        pairs=what["pairs"],
        caveat=suite.caveat,
    )
    try:
        rows = run_plan(plan, output, resume=what["resume"], host=what["host"], say=options.say)
    except KeyboardInterrupt:
        words = [*sys.argv[1:], *([] if what["resume"] else ["--resume"])]
        from sonew_compiled.runtime import Interrupted

        raise Interrupted(
            f"stopped; finished rows are in {output}; go on with: sonew {' '.join(map(quoted, words))}"
        ) from None
    if not rows:
        raise SonewError("the benchmark has no runs; give --optimizer, --precision or --target")
    write_report(rows, output)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        click.echo((output / "table.md").read_text(encoding="utf-8"), nl=False)
    if suite.caveat:
        options.say(f"note: {suite.caveat}")
    failed = sum(row["error"] is not None for row in rows)
    options.say(
        f"wrote {output}/report.html: {options.counted(len(rows), 'row')}" + (f", {failed} failed" if failed else "")
    )


def _replaced(suite: Suite, what: dict[str, Any]) -> Suite:
    """The suite with the options that were given in place of its own."""
    if what["epochs"] and what["steps"]:
        raise UsageError("--epochs trains and --steps only times steps; leave one of them out")
    names = ("model", "optimizers", "precisions", "targets", "seeds", "data", "target_losses")
    given = {name: what[name] for name in names if what[name]}
    if what["epochs"] or what["steps"]:
        given |= {"epochs": what["epochs"], "steps": what["steps"], "caveat": ""}
    return dataclasses.replace(suite, **given)


def _speed(output: Path, preset: str, what: dict[str, Any], *, as_json: bool) -> None:
    for name, flag in _NOT_FOR_SPEED.items():
        if what[name] is not None and what[name] is not False and what[name] != ():
            raise UsageError(f"{flag} does not go with --preset {preset}, which measures the same for everybody")
    from sonew_compiled.bench import models, speed, workers
    from sonew_compiled.bench.goals import Goal, markdown
    from sonew_compiled.bench.speed import SpeedSettings

    model = what["model"] or "autoencoder"
    options.load_model(model)
    dataset = options.dataset_of(what["data"], None, {})
    examples = len(next(iter(dataset.train.values())))
    if what["batch_size"] > examples:
        raise UsageError(
            f"--batch-size is {what['batch_size']}; {dataset.name} has {examples:,} examples to train on: give no more"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SonewError(f"cannot write {output}: {error.strerror}; give another -o/--output") from None
    settings = SpeedSettings(model=model, batch_size=what["batch_size"], pairs=what["pairs"], data=dataset.name)
    goals: Sequence[Goal]
    if preset == "models":
        chosen = {model: what["batch_size"]} if what["model"] else models.BATCHES
        result = models.measure_models(settings, chosen, host=what["host"], say=options.say)
        goals = models.goals_of(chosen)
    elif preset == "speed":
        result, goals = speed.measure_speed(settings, host=what["host"], say=options.say), speed.GOALS
    else:
        result, goals = workers.measure_workers(settings, host=what["host"], say=options.say), workers.GOALS
    table = markdown(result, goals)
    (output / f"{preset}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (output / f"{preset}.md").write_text(table, encoding="utf-8")
    click.echo(json.dumps(result, indent=1) if as_json else table, nl=as_json)
    options.say(f"wrote {output}/{preset}.json and {output}/{preset}.md")
