"""Trains the autoencoder under each policy of precision, and times an epoch of each.

    python tools/precision_runs.py --output docs/results/precision-20.jsonl
    python tools/precision_runs.py --output docs/results/epoch-seconds.json --only-time

A run is `sonew run --data mnist --epochs 20 --schedule paper` with an optimizer, a policy and a rate. With
`--only-time` three epochs of each bundle are timed instead, also of the systems of `sonew bench --preset paper`, which
takes twenty minutes on a machine that has to do nothing else. What is already in the output is skipped: an
interrupted series goes on, and a new system is timed alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from paper_table import system

from sonew_compiled.bench.suites import SUITES
from sonew_compiled.presets import PRECISIONS

_PAPER = SUITES["paper"]

RUNS = (
    *(("adam", policy, 1e-3) for policy in PRECISIONS),
    *(("adam", "f32", rate) for rate in (5e-4, 2e-3)),
    ("tridiag-sonew", "bf16", 1e-2),
    *((optimizer, policy, 7e-3) for optimizer in ("tridiag-sonew", "band-sonew") for policy in PRECISIONS),
    *((optimizer, "bf16", 1.3e-2) for optimizer in ("tridiag-sonew", "band-sonew")),
)
"""The optimizer, the policy and the learning rate of each run."""
COMPILED = {
    **{f"{name}-{policy}": {"optimizer": name, "precision": policy} for name, policy, _ in RUNS},
    **{
        f"{system({'name': name, **form})}-{policy}": {"optimizer": name, "precision": policy, **form}
        for name in _PAPER.optimizers
        for form in _PAPER.forms.get(name, ({},))
        for policy in _PAPER.precisions
    },
}
"""The bundles of the runs and of the table of 100 epochs, which are timed, with their settings."""

EPOCHS = 20
_SHORT = 3

_SONEW = (sys.executable, "-c", "from sonew_compiled.cli import main; main()")


@click.command(help=__doc__.replace("\n\n    ", "\n\n\b\n    "))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="File of JSON lines, or of the seconds.")
@click.option("--bundles", type=click.Path(path_type=Path), default=Path("bundles"), help="Folder for the bundles.")
@click.option("--only-time", is_flag=True, help="Time three epochs of each bundle twice.")
def main(output: Path, bundles: Path, only_time: bool) -> None:
    """Compiles what is not there, and does the runs that are left, or times all."""
    if only_time:
        _time(output, bundles)
        return
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    done = {(row["optimizer"], row["precision"], row["learning_rate"]) for row in map(json.loads, lines)}
    for optimizer, policy, rate in (each for each in RUNS if each not in done):
        result = _run(_compiled(bundles, f"{optimizer}-{policy}"), epochs=EPOCHS, rate=rate)
        row = {"optimizer": optimizer, "precision": policy, "learning_rate": rate, "seed": 0, "epochs": EPOCHS}
        row |= {key: result[key] for key in ("train_loss", "test_loss", "steps", "target", "device")}
        click.echo(f"{optimizer} {policy} {rate:g}: {row['train_loss']:.2f}")
        with output.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")


def _time(output: Path, bundles: Path) -> None:
    """Adds the seconds of an epoch of each system that the output lacks."""
    done: dict[str, float] = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    left = [name for name in COMPILED if name not in done]
    compiled = [_compiled(bundles, name) for name in left]
    # A server is now and then slow for minutes, so the lesser of two rounds counts.
    rounds = [[_run(bundle, epochs=_SHORT)["seconds"] for bundle in compiled] for _ in range(2)]
    for name, *seconds in zip(left, *rounds, strict=True):
        done[name] = round(min(seconds) / _SHORT, 3)
    output.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")


def _compiled(bundles: Path, name: str) -> Path:
    """The bundle, which is compiled if it is not there."""
    bundle = bundles / name
    if not bundle.exists():
        words = [word for setting, value in COMPILED[name].items() for word in (f"--{setting}", value)]
        _sonew("compile", "-o", bundle, *words)
    return bundle


def _run(bundle: Path, *, epochs: int, rate: float | None = None) -> dict[str, Any]:
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
