"""Trains the autoencoder under each policy of precision, and appends a JSON line for each run.

    python tools/precision_runs.py --output docs/results/precision-20.jsonl

A run is `sonew run --data mnist --epochs 20 --schedule paper` with an optimizer, a policy and a rate. Runs that are
already in the output are skipped, so an interrupted series goes on. The seconds of a row are those of its training,
and compare the policies only if the machine does nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

from sonew_compiled.presets import PRECISIONS

RUNS = (
    *(("adam", policy, 1e-3) for policy in PRECISIONS),
    *(("adam", "f32", rate) for rate in (5e-4, 2e-3)),
    *((optimizer, policy, 7e-3) for optimizer in ("tridiag-sonew", "band-sonew") for policy in PRECISIONS),
    *((optimizer, "bf16", 1.3e-2) for optimizer in ("tridiag-sonew", "band-sonew")),
    *(("shampoo", policy, 3.7e-3) for policy in ("f32", "bf16")),
)
"""The optimizer, the policy and the learning rate of each run."""

_SONEW = (sys.executable, "-c", "from sonew_compiled.cli import main; main()")


@click.command(help=__doc__.replace("\n\n    ", "\n\n\b\n    "))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="File of JSON lines to append to.")
@click.option("--bundles", type=click.Path(path_type=Path), default=Path("bundles"), help="Folder for the bundles.")
@click.option("--epochs", default=20, show_default=True, help="Epochs of each run; 0 only compiles.")
def main(output: Path, bundles: Path, epochs: int) -> None:
    """Compiles what is not there, and does the runs that are left."""
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    done = {(row["optimizer"], row["precision"], row["learning_rate"]) for row in map(json.loads, lines)}
    for optimizer, policy, rate in RUNS:
        bundle = bundles / f"{optimizer}-{policy}"
        if not bundle.exists():
            _sonew("compile", "-o", bundle, "--optimizer", optimizer, "--precision", policy)
        if not epochs or (optimizer, policy, rate) in done:
            continue
        run = ["run", bundle, "-o", bundles / "run", "--overwrite", "--json", "--data", "mnist", "--schedule", "paper"]
        run += ["--epochs", epochs, "--evaluate-every", 0, "--checkpoint-every", epochs, "--learning-rate", rate]
        result = json.loads(_sonew(*run))
        row = {"optimizer": optimizer, "precision": policy, "learning_rate": rate, "seed": 0, "epochs": epochs}
        row |= {key: result[key] for key in ("train_loss", "test_loss", "steps", "seconds", "target", "device")}
        click.echo(f"{optimizer} {policy} {rate:g}: {row['train_loss']:.2f} in {row['seconds']:.0f} s")
        with output.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")


def _sonew(*words: object) -> str:
    """What the command prints on stdout."""
    return subprocess.run([*_SONEW, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
