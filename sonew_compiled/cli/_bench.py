"""`sonew bench`."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sonew_compiled.bench.suites import SUITES
from sonew_compiled.cli import _dataset_options as datasets
from sonew_compiled.cli import _options as options
from sonew_compiled.cli._bench_rows import compare_command, export_command, merge_command
from sonew_compiled.cli._dry_run import chosen, dry_run_option, show_plan, source_of
from sonew_compiled.cli._say import note, output_options
from sonew_compiled.cli._sections import SectionedGroup
from sonew_compiled.cli._setting_type import Whole, type_of
from sonew_compiled.errors import SonewError, UsageError, counted
from sonew_compiled.install import require
from sonew_compiled.presets import PRECISIONS, SETTINGS
from sonew_compiled.setting import FLOAT32_MOST, Setting, flag_of

if TYPE_CHECKING:
    from sonew_compiled.bench.plan import Plan
    from sonew_compiled.bench.speed import SpeedSettings
    from sonew_compiled.bench.suites import Suite

DEFAULT_OUTPUT = Path("sonew-bench")
_TARGET_LOSS = Setting(
    name="target_loss",
    kind=float,
    help="Loss for which to record when training first reaches it",
    accepted="a number of float32, such as 60",
    least=-FLOAT32_MOST,
    most=FLOAT32_MOST,
)
_LONGEST_HOST = 100
# The presets of ratios, which measure the same for everybody.
_SPEED_PRESETS = ("speed", "workers", "models")
_PRESETS = (*SUITES, *_SPEED_PRESETS)
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
    **options.STEP_FLAGS,
}


@click.group(
    "bench",
    cls=SectionedGroup,
    invoke_without_command=True,
    short_help="Compare optimizers, precisions and devices.",
)
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
    "--model",
    metavar="NAME",
    multiple=True,
    help=f"{', '.join(options.MODELS)}, or package.module:attribute of yours; repeatable for --preset models.  "
    "[default: the preset's]",
)
@click.option(
    "--optimizer",
    "optimizers",
    type=options.OPTIMIZER,
    metavar="NAME",
    multiple=True,
    help=f"{options.OPTIMIZER_NAMES}; repeatable.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    help="Precision policy of the runs; repeatable.",
)
@click.option("--target", "targets", multiple=True, help="Target to compile for, or `here` for all; repeatable.")
@click.option("--device", help="Device to run on.  [default: the first that runs the target]")
@click.option("--seed", "seeds", type=Whole(0, 2**31 - 1), multiple=True, help="Seed of the runs; repeatable.")
@click.option("--learning-rate", type=options.RATE, help="Peak learning rate of every run.")
@options.setting_options
@options.step_options
@options.batch_size_option
@click.option("--epochs", type=Whole(min=1), help="Train each run for this many epochs.")
@click.option("--steps", type=Whole(min=1), help="Time this many steps instead of training.")
@click.option("--data", help="The data set, as for `sonew run`.")
@click.option("--data-dir", type=options.PATH, help="Folder with the files of `mnist`.")
@click.option(
    "--target-loss",
    "target_losses",
    type=type_of(_TARGET_LOSS),
    multiple=True,
    help=f"{_TARGET_LOSS.help}; repeatable.",
)
@click.option(
    "--vs",
    "versus",
    type=click.Choice(["jax", "torch"]),
    multiple=True,
    help="Also time the step of jax.jit or of PyTorch, alternating with the compiled one; repeatable.",
)
@click.option("--pairs", type=Whole(min=1), default=20, show_default=True, help="Pairs of interleaved measurements.")
@click.option("--resume", is_flag=True, help="Resume the benchmark in the folder, without repeating finished runs.")
@click.option(
    "--host",
    help="The name of this machine in the rows and the report; '' leaves it out.  [default: its host name]",
)
@dry_run_option
@output_options
@click.pass_context
def bench_command(
    context: click.Context, /, output: Path, preset: str, host: str | None, dry_run: bool, as_json: bool, **what: Any
) -> None:
    """Compare optimizers, precisions and devices by training with each.

    Writes a line to rows.jsonl when a run ends, then table.md, plots and report.html. The row of a run that fails holds
    its error. The page "Benchmarks" of the documentation says how the figures are measured.

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

    require("bench", purpose="sonew bench")  # also what it draws with, before hours of training and not after
    what["models"], what["model"] = what["model"], _first_model(preset, what["model"])
    what["host"] = (platform.node() if host is None else host)[:_LONGEST_HOST] or None
    if dry_run:
        _show_plan(output, preset, what, as_json=as_json)
        return
    with owned(output):
        if preset in _SPEED_PRESETS:
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


def _first_model(preset: str, models: Sequence[str]) -> str | None:
    """The first model that is named, or None.

    Raises:
      UsageError: the preset measures one, and several are named.
    """
    if len(models) > 1 and preset != "models":
        raise UsageError(f"--model is given {len(models)} times, and --preset {preset} measures one model; give one")
    return models[0] if models else None


def _show_plan(output: Path, name: str, what: dict[str, Any], *, as_json: bool) -> None:
    """What the benchmark would run."""
    of_preset = f"preset {name}"
    if name in _SPEED_PRESETS:
        settings = _speed_settings(name, what)
        found = {key: chosen(key, getattr(settings, key)) for key in ("model", "data")}
        if name == "models":
            sizes = _sizes(what)
            found |= {"model": chosen("model", tuple(sizes), of_preset)}
            found |= {"batch_size": chosen("batch_size", tuple(sizes.values()), of_preset)}
        writes = [output / f"{name}.json", output / f"{name}.md"]
        show_plan(found, writes=writes, as_json=as_json)
        return
    from sonew_compiled.bench.benchmark import BUNDLES, left_of
    from sonew_compiled.bench.labels import optimizer_in_words
    from sonew_compiled.bench.report import REPORT_FILE, TABLE_FILE
    from sonew_compiled.bench.rows import ROWS_FILE
    from sonew_compiled.bench.suites import SUITES

    suite = _replaced(SUITES[name], what)
    names = ("model", "optimizers", "precisions", "targets", "seeds", "epochs", "steps", "data", "target_losses")
    found = {key: chosen(key, getattr(suite, key), of_preset) for key in names}
    plan = _plan(suite, what)
    runs, labels = left_of(plan, output, resume=what["resume"], say=note), plan.labels()
    rows = [
        f"{labels[plan.runs.index(run)]} ({optimizer_in_words(run.optimizer.to_json())}): {', '.join(kinds)}"
        for run, kinds in runs
    ]
    files = (ROWS_FILE, TABLE_FILE, REPORT_FILE, "*.png", "*.svg", BUNDLES)
    about = {"schedule": suite.schedule} if suite.epochs else {}
    show_plan(found, writes=[output / each for each in files], as_json=as_json, **about, runs=rows)


def _plan(suite: Suite, what: dict[str, Any]) -> Plan:
    """The runs of a suite."""
    from sonew_compiled.bench.plan import Plan, check_step, make_runs, places_of
    from sonew_compiled.runtime import load_dataset

    step = options.step_of(what)
    check_step(options.load_model(suite.model), step)
    datasets.check_data_dir(suite.data, what["data_dir"])
    datasets.check_batch_size(what["batch_size"], load_dataset(suite.data, data_dir=what["data_dir"]))
    return Plan(
        runs=make_runs(
            model=suite.model,
            optimizers=suite.optimizers,
            precisions=suite.precisions,
            places=places_of(suite.targets, what["device"]),
            batch_size=what["batch_size"],
            seeds=suite.seeds,
            epochs=suite.epochs,
            steps=suite.steps,
            schedule=suite.schedule,
            data=suite.data,
            data_dir=what["data_dir"],
            learning_rate=what["learning_rate"],
            settings={name: what[name] for name in SETTINGS},
            forms=suite.forms,
            step=step,
        ),
        target_losses=suite.target_losses,
        update=suite.update,
        versus=what["versus"],
        pairs=what["pairs"],
        caveat=suite.caveat,
    )


def _compare(output: Path, name: str, what: dict[str, Any], *, as_json: bool) -> None:
    from sonew_compiled.bench.benchmark import run_plan
    from sonew_compiled.bench.report import write_report
    from sonew_compiled.bench.suites import SUITES
    from sonew_compiled.runtime.shown import quoted

    suite = _replaced(SUITES[name], what)
    plan = _plan(suite, what)
    try:
        rows = run_plan(plan, output, resume=what["resume"], host=what["host"], say=note)
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
        note(f"note: {suite.caveat}")
    failed = sum(row.get("error") is not None for row in rows)
    note(f"wrote {output}/report.html: {counted(len(rows), 'row')}" + (f", {failed} failed" if failed else ""))


def _replaced(suite: Suite, what: dict[str, Any]) -> Suite:
    """The suite with the options that were given in place of its own."""
    if what["epochs"] and what["steps"]:
        raise UsageError("--epochs trains and --steps only times steps; leave one of them out")
    names = ("model", "optimizers", "precisions", "targets", "seeds", "data", "target_losses")
    given = {name: what[name] for name in names if what[name]}
    if what["epochs"] or what["steps"]:
        given |= {"epochs": what["epochs"], "steps": what["steps"]}
    if given.keys() & {"model", "epochs", "steps"}:
        given["caveat"] = ""
    return dataclasses.replace(suite, **given)


def _speed_settings(preset: str, what: dict[str, Any]) -> SpeedSettings:
    """The settings of the presets that measure the same for everybody."""
    for name, flag in (_NOT_FOR_SPEED | ({"data": "--data"} if preset == "models" else {})).items():
        if what[name] is not None and what[name] is not False and what[name] != ():
            raise UsageError(f"{flag} does not go with --preset {preset}, which measures the same for everybody")
    from sonew_compiled.bench.speed import SpeedSettings

    model = what["model"] or "autoencoder"
    options.load_model(model)
    if preset == "models":
        return SpeedSettings(pairs=what["pairs"])
    dataset = datasets.dataset_of(what["data"], None, {})
    datasets.check_batch_size(what["batch_size"], dataset)
    return SpeedSettings(model=model, batch_size=what["batch_size"], pairs=what["pairs"], data=dataset.name)


def _sizes(what: dict[str, Any]) -> Mapping[str, int]:
    """The examples in a step of each model of the table of models."""
    from sonew_compiled.bench.models import sizes_of

    for name in what["models"]:
        options.load_model(name)
    return sizes_of(what["models"], what["batch_size"] if source_of("batch_size") else None)


def _speed(output: Path, preset: str, what: dict[str, Any], *, as_json: bool) -> None:
    from sonew_compiled.bench import models, speed, workers
    from sonew_compiled.bench.goals import Goal, markdown

    settings = _speed_settings(preset, what)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SonewError(f"cannot write {output}: {error.strerror}; give another -o/--output") from None
    goals: Sequence[Goal]
    if preset == "models":
        measured = _sizes(what)
        result = models.measure_models(settings, measured, host=what["host"], say=note)
        goals = models.goals_of(measured)
    elif preset == "speed":
        result = speed.measure_speed(settings, host=what["host"], say=note)
        goals = speed.goals_of(result)
    else:
        result, goals = workers.measure_workers(settings, host=what["host"], say=note), workers.GOALS
    table = markdown(result, goals)
    (output / f"{preset}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (output / f"{preset}.md").write_text(table, encoding="utf-8")
    click.echo(json.dumps(result, indent=1) if as_json else table, nl=as_json)
    note(f"wrote {output}/{preset}.json and {output}/{preset}.md")
