"""`sonew tune`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sonew_compiled.cli import _options as options
from sonew_compiled.cli._dry_run import chosen, dry_run_option, show_plan
from sonew_compiled.cli._say import console, note, output_options, print_json, show_result
from sonew_compiled.cli._sections import SectionedCommand
from sonew_compiled.cli._setting_type import Whole
from sonew_compiled.errors import SonewError, counted
from sonew_compiled.install import require
from sonew_compiled.presets import DEFAULT_OPTIMIZER, PRECISIONS, SETTINGS
from sonew_compiled.train_settings import DEFAULT_SCHEDULE

if TYPE_CHECKING:
    from sonew_compiled.bench.tuning import TuneSettings


@click.command("tune", cls=SectionedCommand)
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
@click.option("--data", default=options.DEFAULT_DATA, show_default=True, help="The data set, as for `sonew run`.")
@click.option("--data-dir", type=options.PATH, help="Folder with the files of `mnist`.")
@click.option("--seed", type=Whole(0, 2**31 - 1), default=0, show_default=True, help="Seed of every trial.")
@click.option(
    "--sampler",
    type=click.Choice(["tpe", "random"]),
    default="tpe",
    show_default=True,
    help="Search by TPE or at random.",
)
@click.option("--trials", type=Whole(min=1), help="Trials of the whole study, including those already done.")
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), help="Minutes after which no further trial starts."
)
@dry_run_option
@output_options
def tune_command(
    output: Path,
    trials: int | None,
    minutes: float | None,
    data_dir: Path | None,
    dry_run: bool,
    as_json: bool,
    **what: Any,
) -> None:
    """Search an optimizer's learning rate, b1, b2 and eps by training with many values.

    Every trial trains by the protocol of sonew run. The values are inputs of one compiled step. A value that is given
    for one of them is the center of its search; other settings stay as given. The study is saved after each trial, and
    the same command resumes it.

    \b
    Examples:
      sonew tune --optimizer adam --trials 30
      sonew tune --optimizer band-sonew --precision bf16-pure --data mnist --minutes 120 -o band-bf16
    """
    require("tune", purpose="sonew tune")
    options.load_model(what["model"])
    from sonew_compiled.bench.tuning import TuneSettings, tune

    given = {name: value for name in SETTINGS if (value := what.pop(name)) is not None}
    settings = TuneSettings(**what, settings=given)
    if dry_run:
        _show_plan(settings, output, trials, minutes, data_dir, as_json=as_json)
        return
    try:
        result = tune(settings, output, trials=trials, minutes=minutes, data_dir=data_dir, say=note)
    except KeyboardInterrupt:
        from sonew_compiled.runtime import Interrupted

        raise Interrupted(f"stopped; the finished trials are in {output}: the same command resumes the study") from None
    if as_json:
        print_json(settings.to_json() | dataclasses.asdict(result))
    if result.best is None:
        raise SonewError(
            f"none of {counted(result.trials, 'trial')} trained to the end: every loss became NaN or infinite"
        )
    if not as_json:
        _print_best(result.best, result.train_loss, result.test_loss)
    show_result(f"best of {counted(result.trials, 'trial')}: {result.command}", as_json=as_json)


def _show_plan(
    settings: TuneSettings,
    output: Path,
    trials: int | None,
    minutes: float | None,
    data_dir: Path | None,
    *,
    as_json: bool,
) -> None:
    from sonew_compiled.bench.tuning import BEST_FILE, STUDY_FILE, TRIAL_BUNDLE, check_budget, preset_of, searched

    check_budget(settings, trials=trials, minutes=minutes)
    ranges = [f"{name} from {least:.6g} to {most:.6g}" for name, (least, most) in searched(settings).items()]
    examples = len(next(iter(options.dataset_of(settings.data, data_dir, {}).train.values())))
    preset = preset_of(settings)
    rate = preset.learning_rate if settings.learning_rate is None else settings.learning_rate
    of_preset = f"preset of {preset.name}"
    found = {name: chosen(name, value, of_preset) for name, value in preset.values.items()}
    found["learning_rate"] = chosen("learning_rate", rate, of_preset)
    show_plan(
        found,
        writes=[output / name for name in (STUDY_FILE, BEST_FILE, TRIAL_BUNDLE)],
        as_json=as_json,
        search=ranges,
        steps_per_trial=settings.epochs * (examples // settings.batch_size),
    )


def _print_best(best: dict[str, float], train_loss: float | None, test_loss: float | None) -> None:
    from rich.table import Table

    table = Table("setting", "value", box=None, header_style="bold", pad_edge=False)
    for name, value in best.items():
        table.add_row(name, f"{value:g}")
    for name, loss in (("train loss", train_loss), ("test loss", test_loss)):
        if loss is not None:
            table.add_row(name, f"{loss:.4f}")
    console().print(table)
