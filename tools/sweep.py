"""Trains a model once for each setting under `jax.jit`, and appends a JSON line a run: how the presets were found.

The protocol is the runtime's: the same initial weights, order of the data, schedule and losses for the same seed.

    python tools/sweep.py --optimizer adam --learning-rate 5e-4 --learning-rate 1e-3 --epochs 100 --output adam.jsonl

Every combination of the repeatable options is a run; a run that the output file has already is skipped, so a sweep
that was interrupted goes on.
"""

from __future__ import annotations

import collections
import itertools
import json
import math
from pathlib import Path
from typing import Any

import click

from sonew_compiled.bench._jax import JaxTraining
from sonew_compiled.models import autoencoder
from sonew_compiled.presets import OPTIMIZERS, optimizer_settings
from sonew_compiled.runtime import BoundData, bind, learning_rates, load_dataset
from sonew_compiled.runtime.manifest import TensorSpec

BATCH_SIZE = 1000


def train(setting: dict[str, Any], train_data: BoundData, test_data: BoundData) -> dict[str, Any]:
    """One run; its losses are means over the whole splits, in nats an image, or NaN where it diverged."""
    names = ("band", "b1", "b2", "eps")
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


@click.command()
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), required=True)
@click.option("--band", type=int)
@click.option("--learning-rate", "learning_rates_", type=float, multiple=True, required=True)
@click.option("--b1", "b1s", type=float, multiple=True, help="By default the preset's, as of --b2 and --eps.")
@click.option("--b2", "b2s", type=float, multiple=True)
@click.option("--eps", "epss", type=float, multiple=True)
@click.option("--seed", "seeds", type=int, multiple=True, default=(0,), show_default=True)
@click.option("--epochs", type=int, default=20, show_default=True)
@click.option("--warmup-epochs", type=int, help="By default that of `sonew run`.")
@click.option("--schedule", default="paper", show_default=True)
@click.option("--data", default="mnist", show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(**options: Any) -> None:
    """Train once for each combination of the repeatable options."""
    dataset = load_dataset(options["data"], data_dir=options["data_dir"])
    fields = (TensorSpec(name="image", shape=(BATCH_SIZE, 784), dtype="float32"),)
    train_data, test_data = bind(dataset.train, fields), bind(dataset.test, fields)
    output: Path = options["output"]
    rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    preset = optimizer_settings(options["optimizer"])
    b1s, b2s, epss = (options[f"{name}s"] or (getattr(preset, name),) for name in ("b1", "b2", "eps"))
    axes = (options["learning_rates_"], b1s, b2s, epss, options["seeds"])
    for learning_rate, b1, b2, eps, seed in itertools.product(*axes):
        setting = {
            "optimizer": options["optimizer"],
            "band": options["band"],
            "learning_rate": learning_rate,
            "b1": b1,
            "b2": b2,
            "eps": eps,
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
