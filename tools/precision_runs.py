"""Trains the autoencoder under each policy of precision, and times an epoch of each.

    python tools/precision_runs.py --output docs/results/precision-20.jsonl
    python tools/precision_runs.py --output docs/results/epoch-seconds.json --only-time

A run is `sonew run --data mnist --epochs 20 --schedule paper` with an optimizer, a policy and a rate. Runs whose lines
are already in the output are skipped, so an interrupted series goes on. With `--only-time` three epochs of each bundle
are timed instead, which takes three minutes on a machine that has to do nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from sonew_compiled.presets import PRECISIONS

RUNS = (
    *(("adam", policy, 1e-3) for policy in PRECISIONS),
    *(("adam", "f32", rate) for rate in (5e-4, 2e-3)),
    ("tridiag-sonew", "bf16", 1e-2),
    *((optimizer, policy, 7e-3) for optimizer in ("tridiag-sonew", "band-sonew") for policy in PRECISIONS),
    *((optimizer, "bf16", 1.3e-2) for optimizer in ("tridiag-sonew", "band-sonew")),
)
"""The optimizer, the policy and the learning rate of each run."""
TIMED = tuple(
    (name, policy, None)
    for name in (
        *("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "diag-sonew", "shampoo", "kfac"),
        *("rfdson(1)", "rfdson(4)"),
    )
    for policy in ("f32", "bf16")
)
"""What is timed besides, for the table of 100 epochs, at the rate that ships."""

EPOCHS = 20
_SHORT = 3

_SONEW = (sys.executable, "-c", "from sonew_compiled.cli import main; main()")


@click.command(help=__doc__.replace("\n\n    ", "\n\n\b\n    "))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="File of JSON lines, or of the seconds.")
@click.option("--bundles", type=click.Path(path_type=Path), default=Path("bundles"), help="Folder for the bundles.")
@click.option("--only-time", is_flag=True, help="Time three epochs of each bundle twice, and replace the file.")
def main(output: Path, bundles: Path, only_time: bool) -> None:
    """Compiles what is not there, and does the runs that are left, or times all."""
    runs: tuple[tuple[str, str, float | None], ...] = (*RUNS, *TIMED)
    for optimizer, policy, _ in runs:
        if not (bundles / f"{optimizer}-{policy}").exists():
            name, _, rank = optimizer.rstrip(")").partition("(")
            words = ["--optimizer", name, "--precision", policy, *(["--rank", rank] if rank else [])]
            _sonew("compile", "-o", bundles / f"{optimizer}-{policy}", *words)
    if only_time:
        rates = {f"{optimizer}-{policy}": rate for optimizer, policy, rate in runs}
        # A server is now and then slow for minutes, so the lesser of two rounds counts.
        rounds = [
            {name: _run(bundles / name, epochs=_SHORT, rate=rate)["seconds"] for name, rate in rates.items()}
            for _ in range(2)
        ]
        least = {name: round(min(each[name] for each in rounds) / _SHORT, 3) for name in rates}
        output.write_text(json.dumps(least, indent=1) + "\n", encoding="utf-8")
        return
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    done = {(row["optimizer"], row["precision"], row["learning_rate"]) for row in map(json.loads, lines)}
    for optimizer, policy, rate in (each for each in RUNS if each not in done):
        result = _run(bundles / f"{optimizer}-{policy}", epochs=EPOCHS, rate=rate)
        row = {"optimizer": optimizer, "precision": policy, "learning_rate": rate, "seed": 0, "epochs": EPOCHS}
        row |= {key: result[key] for key in ("train_loss", "test_loss", "steps", "target", "device")}
        click.echo(f"{optimizer} {policy} {rate:g}: {row['train_loss']:.2f}")
        with output.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")


def _run(bundle: Path, *, epochs: int, rate: float | None) -> dict[str, Any]:
    """What a run prints as JSON."""
    words = ["run", bundle, "-o", bundle.with_name("run"), "--overwrite", "--json", "--data", "mnist"]
    words += ["--schedule", "paper", "--epochs", epochs, "--evaluate-every", 0, "--checkpoint-every", epochs]
    words += [] if rate is None else ["--learning-rate", rate]
    result: dict[str, Any] = json.loads(_sonew(*words))
    return result


def _sonew(*words: object) -> str:
    """What the command prints on stdout."""
    return subprocess.run([*_SONEW, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
