"""Trains a model once for each setting under `jax.jit`, and appends a JSON line for each run. It found some presets.

The protocol is the runtime's: the same seed gives the same initial weights, order of the data, schedule and losses.

    python tools/sweep.py --optimizer adam --learning-rate 5e-4 --learning-rate 1e-3 --epochs 100 --output adam.jsonl

Every combination of the repeatable options is a run. Runs that are already in the output file are skipped, so an
interrupted sweep goes on.
"""

from __future__ import annotations

import collections
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sonew_compiled.bench._jax import JaxTraining
from sonew_compiled.contract import Role
from sonew_compiled.models import autoencoder
from sonew_compiled.presets import OPTIMIZERS, RECORDS, SETTINGS, optimizer_settings, settings_of
from sonew_compiled.runtime import SCHEDULES, BoundData, bind, learning_rates, load_dataset
from sonew_compiled.runtime.manifest import TensorSpec
from sonew_compiled.setting import flag_of

BATCH_SIZE = 1000


def train(setting: dict[str, Any], train_data: BoundData, test_data: BoundData) -> dict[str, Any]:
    """One run. Its losses are means over the whole splits, in nats for each image, or NaN if it diverged."""
    names = settings_of(setting["optimizer"])
    settings = optimizer_settings(setting["optimizer"], **{name: setting[name] for name in names})
    training = JaxTraining(autoencoder, settings)
    rate = learning_rates(
        setting["schedule"],
        peak=setting["learning_rate"],
        epochs=setting["epochs"],
        steps_per_epoch=train_data.steps_per_epoch,
        warmup_epochs=setting["warmup_epochs"],
    )
    seed = setting["seed"]
    epochs = training.epochs(training.init(seed), train_data, seed=seed, epochs=setting["epochs"], rate=rate)
    (last,) = collections.deque(epochs, maxlen=1)
    diverged = not math.isfinite(last.loss)
    return {
        **setting,
        "train_loss": math.nan if diverged else training.mean_loss(last.state, train_data),
        "test_loss": math.nan if diverged else training.mean_loss(last.state, test_data),
        "steps": last.steps,
        "seconds": round(last.seconds, 1),
    }


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds a repeatable option for every setting that some optimizer has."""
    kinds = {setting.name: setting.kind for record in RECORDS.values() for setting in record.settings}
    for name in reversed(SETTINGS):
        option = click.option(flag_of(name), name, type=kinds[name], multiple=True, help="Default: the preset's.")
        command = option(command)
    return command


@click.command()
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), required=True)
@click.option("--learning-rate", "learning_rates_", type=float, multiple=True, required=True)
@setting_options
@click.option("--seed", "seeds", type=int, multiple=True, default=(0,), show_default=True)
@click.option("--epochs", type=int, default=20, show_default=True)
@click.option("--warmup-epochs", type=int, help="Default: that of `sonew run`.")
@click.option("--schedule", type=click.Choice(SCHEDULES), default="paper", show_default=True)
@click.option("--data", default="mnist", show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(**options: Any) -> None:
    """Train once for each combination of the repeatable options."""
    dataset = load_dataset(options["data"], data_dir=options["data_dir"])
    fields = (TensorSpec(name="image", shape=(BATCH_SIZE, 784), dtype="float32", role=Role.BATCH),)
    train_data, test_data = bind(dataset.train, fields), bind(dataset.test, fields)
    output: Path = options["output"]
    rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    shipped = optimizer_settings(options["optimizer"]).values
    names = settings_of(options["optimizer"])
    for name in SETTINGS:
        if options[name] and name not in names:
            optimizer_settings(options["optimizer"], **{name: options[name][0]})  # refuses it
    axes = [options[name] or (shipped[name],) for name in names]
    for learning_rate, *values, seed in itertools.product(options["learning_rates_"], *axes, options["seeds"]):
        setting = {
            "optimizer": options["optimizer"],
            "learning_rate": learning_rate,
            **dict(zip(names, values, strict=True)),
            "seed": seed,
            **{name: options[name] for name in ("epochs", "warmup_epochs", "schedule", "data")},
        }
        if any(setting.items() <= row.items() for row in rows):
            click.echo(f"already in {output}: {setting}", err=True)
            continue
        row = train(setting, train_data, test_data)
        click.echo(json.dumps(row))
        with output.open("a") as stream:
            stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
