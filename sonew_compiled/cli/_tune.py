"""`sonew tune`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sonew_compiled.cli import _dataset_options as datasets
from sonew_compiled.cli import _options as options
from sonew_compiled.cli._dry_run import chosen, dry_run_option, show_plan
from sonew_compiled.cli._say import console, note, output_options, print_json, show_result
from sonew_compiled.cli._sections import SectionedCommand
from sonew_compiled.cli._setting_type import Whole, type_of
from sonew_compiled.errors import SonewError, counted, measured
from sonew_compiled.install import require
from sonew_compiled.presets import DEFAULT_OPTIMIZER, PRECISIONS, SETTINGS
from sonew_compiled.setting import FLOAT32_LEAST, FLOAT32_MOST, Setting
from sonew_compiled.train_settings import DEFAULT_SCHEDULE

if TYPE_CHECKING:
    from sonew_compiled.bench.tuning import Limits, TuneSettings

_MINUTES = Setting(
    name="minutes",
    kind=float,
    help="Minutes after which no further trial starts.",
    accepted="a positive number of minutes, such as 30",
    least=FLOAT32_LEAST,
    most=FLOAT32_MOST,
)


@click.command("tune", cls=SectionedCommand, short_help="Search the settings of an optimizer.")
@click.option(
    "-o", "--output", type=options.PATH, default=Path("sonew-tune"), show_default=True, help="The study's folder."
)
@click.option(
    "--optimizer",
    type=options.OPTIMIZER,
    metavar="NAME",
    default=DEFAULT_OPTIMIZER,
    show_default=True,
    help=f"Optimizer to tune: {options.OPTIMIZER_NAMES}.",
)
@click.option("--learning-rate", type=options.RATE, help="Center of the search.  [default: the rate that ships]")
@options.setting_options
@options.step_options
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="f32",
    show_default=True,
    help="Precision policy of every trial.",
)
@click.option("--model", default="autoencoder", show_default=True, help="The model, as for `sonew compile`.")
@options.batch_size_option
@click.option("--epochs", type=Whole(min=1), default=20, show_default=True, help="Epochs of every trial.")
@options.how_to_train("schedule", schedule=DEFAULT_SCHEDULE)
@click.option("--data", default=datasets.DEFAULT_DATA, show_default=True, help="The data set, as for `sonew run`.")
@click.option("--data-dir", type=options.PATH, help="Folder with the files of `mnist`.")
@click.option("--seed", type=Whole(0, 2**31 - 1), default=0, show_default=True, help="Seed of every trial.")
@click.option(
    "--sampler",
    type=click.Choice(["tpe", "random"]),
    default="tpe",
    show_default=True,
    help="Search by TPE or at random.",
)
@click.option(
    "--enqueue",
    multiple=True,
    metavar="SETTINGS",
    help="Trial to begin with, such as 'learning_rate=2e-5,grafting=none', or a file: a study's best.json, or a "
    ".jsonl file with a best.json in each line, for the best trial of each study of this optimizer; repeatable.",
)
@click.option(
    "--budget",
    type=Whole(min=1),
    metavar="EPOCHS",
    help="Epochs of all trials of the study, including those already done.",
)
@click.option("--trials", type=Whole(min=1), help="Trials of the whole study, including those already done.")
@click.option(
    "--minutes",
    type=type_of(_MINUTES),
    metavar="NUMBER",
    help=_MINUTES.help,
)
@click.option(
    "--jobs",
    type=Whole(min=1),
    default=1,
    show_default=True,
    help="Trials at once. One uses all cores; several have a processor thread each.",
)
@dry_run_option
@output_options
def tune_command(
    output: Path,
    data_dir: Path | None,
    enqueue: tuple[str, ...],
    budget: int | None,
    trials: int | None,
    minutes: float | None,
    jobs: int,
    dry_run: bool,
    as_json: bool,
    **what: Any,
) -> None:
    """Search an optimizer's learning rate, b1, b2 and eps by training with many values.

    Every trial trains as sonew run does, under the schedule of the whole length. Successive halving stops most of them
    early. The values are inputs of one compiled step. A value that is given for one of them is the center
    of its search; other settings stay as given. The study is saved after each epoch, and the same command resumes it.
    sonew plot draws it.

    \b
    Examples:
      sonew tune --optimizer adam --trials 30
      sonew tune --optimizer band-sonew --data mnist --epochs 100 --budget 2000 --jobs 2 -o band
      sonew tune --optimizer adam --enqueue learning_rate=1e-3,b1=0.7 --enqueue band/best.json
    """
    require("tune", purpose="sonew tune")
    options.load_model(what["model"])
    from sonew_compiled.bench.enqueued import read_enqueued
    from sonew_compiled.bench.tuning import Limits, TuneSettings, tune

    given = {name: value for name in SETTINGS if (value := what.pop(name)) is not None}
    step = options.step_of(what)
    asked = {name: value for name, value in what.items() if name not in options.STEP_FLAGS}
    settings = TuneSettings(**asked, settings=given, step=step, enqueue=read_enqueued(enqueue, what["optimizer"]))
    datasets.check_data_dir(settings.data, data_dir)
    limits = Limits(budget=budget, trials=trials, minutes=minutes, jobs=jobs)
    if dry_run:
        _show_plan(settings, limits, output, data_dir, as_json=as_json)
        return
    try:
        result = tune(settings, output, **dataclasses.asdict(limits), data_dir=data_dir, say=note)
    except KeyboardInterrupt:
        from sonew_compiled.runtime import Interrupted

        raise Interrupted(f"stopped; the trials are in {output}: the same command resumes the study") from None
    if as_json:
        print_json(settings.to_json() | dataclasses.asdict(result))
    if result.best is None:
        if not result.trials:
            raise SonewError("no trial ended before the limit was reached; give more --minutes, --trials or --budget")
        raise SonewError(
            f"none of {counted(result.trials, 'trial')} trained to the end: every loss became NaN or infinite"
        )
    if not as_json:
        _print_best(output)
    spent = f"{counted(result.trials, 'trial')}, {result.stopped} stopped, {counted(result.epochs_spent, 'epoch')}"
    show_result(f"best of {spent}: {result.command}", as_json=as_json)


def _show_plan(settings: TuneSettings, limits: Limits, output: Path, data_dir: Path | None, *, as_json: bool) -> None:
    from sonew_compiled.bench.studies import BEST_FILE
    from sonew_compiled.bench.tuning import (
        STUDY_FILE,
        bundle_names,
        check_limits,
        forms_of,
        preset_of,
        rungs_of,
        searched,
    )

    check_limits(settings, limits)
    forms = forms_of(settings)
    search, first = [], []
    for form in forms:
        form_told = "".join(f"{name} {value}, " for name, value in form.told.items())
        ranges = [f"{name} from {least:.6g} to {most:.6g}" for name, (least, most) in searched(form).items()]
        search.append(form_told + ", ".join(ranges))
        first += [
            form_told + ", ".join(f"{name} {value:g}" for name, value in form.values_of(each).items())
            for each in form.first
        ]
    examples = datasets.check_batch_size(settings.batch_size, datasets.dataset_of(settings.data, data_dir, {}))
    preset = preset_of(settings)
    of_preset = f"preset of {preset.name}"
    found = {name: chosen(name, value, of_preset) for name, value in preset.values.items()}
    found["learning_rate"] = chosen("learning_rate", preset.learning_rate, of_preset)
    show_plan(
        found,
        writes=[output / name for name in (STUDY_FILE, BEST_FILE, *bundle_names(forms))],
        as_json=as_json,
        search=search,
        first_trials=first,
        compared_after_epochs=rungs_of(settings.epochs),
        steps_per_trial=settings.epochs * (examples // settings.batch_size),
    )


# The trials that are printed in the end, the best first.
_MOST_SHOWN = 5


def _print_best(folder: Path) -> None:
    """Prints the best trials of a study as a table."""
    from rich.table import Table

    from sonew_compiled.bench.studies import read_studies

    (study,) = read_studies(folder)
    best = study.best_trials(_MOST_SHOWN)
    # What is compiled in is shown where trials differ in it.
    names = [name for name, value in (study.best or {}).items() if name in study.searched or type(value) is float]
    table = Table("trial", *names, "train loss", "test loss", box=None, header_style="bold", pad_edge=False)
    for trial in best:
        values = (trial[name] for name in names)
        losses = (trial[name] for name in ("train_loss", "test_loss"))
        table.add_row(
            str(trial["trial"]),
            *(f"{value:g}" if isinstance(value, float) else str(value) for value in values),
            *("" if loss is None else measured(loss) for loss in losses),
        )
    console().print(table)
