"""Damage to every file that a command reads, and the end of each command."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from campaigns import damage
from campaigns.conduct import check_end, seeds

from sonew_compiled.errors import SonewError

EndsWell = Callable[..., int]
Restored = Callable[[], None]

BUNDLE, RUN = Path("small.bundle"), Path("run")
TRAIN = ("run", "small.bundle", "--data", "data.npz", "--epochs", 1, "--max-steps", 2, "-o", "new")
RESUME = ("run", "small.bundle", "--resume", "run", "--data", "data.npz", "--epochs", 7)
EVALUATE = ("eval", "small.bundle", "--checkpoint", "run", "--data", "data.npz")


@pytest.fixture(autouse=True)
def _in_place(place: Path) -> None:
    """Gives each test a folder that it may damage."""


def _either(path: Path, rng: random.Random) -> None:
    """Damages a JSON file, either as JSON or as bytes."""
    content = path.read_bytes()
    path.write_bytes(damage.of_bytes(content, rng) if rng.random() < 0.25 else damage.of_json(json.loads(content), rng))


def test_manifests(ends_well: EndsWell, restored: Restored) -> None:
    for seed in seeds(30):
        rng = random.Random(seed)
        _either(BUNDLE / "manifest.json", rng)
        commands = (("inspect", BUNDLE), ("inspect", BUNDLE, "--json"), ("inspect", BUNDLE, "--kernels"))
        if ends_well(seed, *rng.choice(commands)) == 0:
            # A readable executable may still be invalid code, which the trial then reports.
            ends_well(seed, *rng.choice((TRAIN, EVALUATE)))
        restored()


def test_executables_whose_hash_fits(sonew_apart: Callable[..., Any], restored: Restored) -> None:
    """The command has a process of its own, which a fault in native code would end."""
    for seed in seeds(3):
        rng = random.Random(seed)
        content = damage.of_bytes((BUNDLE / "cpu.vmfb").read_bytes(), rng)
        (BUNDLE / "cpu.vmfb").write_bytes(content)
        manifest = json.loads((BUNDLE / "manifest.json").read_text())
        manifest["files"]["cpu.vmfb"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        (BUNDLE / "manifest.json").write_text(json.dumps(manifest))
        ended = sonew_apart(*TRAIN, cwd=Path.cwd())
        print(f"seed {seed}: {ended.code}: {ended.err[-200:].strip()}")
        check_end(ended.code, ended.err, f"seed {seed}")
        restored()


def _damage_header(path: Path, rng: random.Random) -> None:
    """Writes a damaged header that is still well-formed for safetensors."""
    tensors = safetensors.numpy.load(path.read_bytes())
    with safetensors.safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()["sonew"])
    text = damage.of_json(header, rng).decode(errors="surrogatepass")
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"sonew": text}))


def test_checkpoints(ends_well: EndsWell, restored: Restored) -> None:
    for seed in seeds(12):
        rng = random.Random(seed)
        path = max(RUN.glob("step-*"))
        if rng.random() < 0.5:
            _damage_header(path, rng)
        else:
            path.write_bytes(damage.of_bytes(path.read_bytes(), rng))
        ends_well(seed, *rng.choice((RESUME, EVALUATE)))
        restored()


def test_metrics(ends_well: EndsWell, restored: Restored) -> None:
    rows = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    for seed in seeds(8):
        rng = random.Random(seed)
        (RUN / "metrics.jsonl").write_bytes(damage.of_lines(rows, rng))
        ends_well(seed, *rng.choice((("plot", RUN), RESUME)))
        restored()


def _old_names(rng: random.Random) -> bytes:
    return damage.of_json(["bundle", "step-00000001.safetensors", "../precious", "../precious/thesis.tex"], rng)


def test_locks_and_replacements(ends_well: EndsWell, restored: Restored) -> None:
    owner = {"host": "here", "process": 1, "since": "2026-01-01 00:00:00"}
    for seed in seeds(6):
        rng = random.Random(seed)
        (RUN / ".owner").write_bytes(damage.of_json(owner, rng))
        (RUN / ".replacing").mkdir()
        (RUN / ".replacing" / "old-files.json").write_bytes(_old_names(rng))
        ends_well(seed, *RESUME)
        restored()


def test_data(ends_well: EndsWell, restored: Restored) -> None:
    images = np.load("data.npz")["train_image"]
    for seed in seeds(12):
        rng = random.Random(seed)
        kind = rng.choice(("npz", "npy", "idx"))
        path = Path(f"odd.{kind}")
        if kind == "npz":
            content = Path("data.npz").read_bytes()
        elif kind == "npy":
            np.save(path, images)
            content = path.read_bytes()
        else:
            path = Path("odd-ubyte")
            content = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in images.shape) + images.tobytes()
        path.write_bytes(damage.of_bytes(content, rng))
        ends_well(seed, "run", BUNDLE, "--data", path, "--epochs", 1, "--max-steps", 2, "-o", "new")
        restored()


ROW: dict[str, Any] = {
    "kind": "train",
    "settings": {
        "kind": "train",
        "model": "autoencoder",
        "optimizer": {"name": "adam", "learning_rate": 0.001, "b1": 0.9, "b2": 0.999, "eps": 1e-8},
        "precision": "f32",
        "target": "cpu",
        "device": "local-task",
        "batch_size": 1000,
        "seed": 0,
        "epochs": 2,
        "steps": None,
        "data": "mnist-10k",
    },
    "versions": {"python": "3.13.0", "jax": "0.10.0"},
    "machine": {
        "cpu": "AMD EPYC",
        "cpu_features": ["avx2"],
        "threads": 2,
        "platform": "Linux",
        "device": "local-task",
        "device_description": "the CPU",
        "driver": "local",
    },
    "bundle": "0" * 64,
    "error": None,
    "roofline": {"copy_bytes_per_second": 1e10, "flops_per_second": 1e11, "how": "copies"},
    "curve": [{"epoch": n, "step": 9 * n, "seconds": 0.1 * n, "loss": 3.0 / n} for n in (1, 2, 3)],
    "to_loss": [{"loss": 2.0, "steps": 18, "seconds": 0.2}],
    "gflops": 1.5,
    "step_flops": 1e6,
    "step_bytes": 1e5,
    "train_loss": 1.0,
    "peak_resident_bytes": 10**8,
    "step_p50_seconds": 0.01,
}


def test_rows(place: Path, restored: Restored) -> None:
    """The rows are read and reported, as by `sonew bench --resume` when no run is left."""
    from sonew_compiled.bench import rows
    from sonew_compiled.bench.report import write_report

    both = [ROW, ROW | {"settings": ROW["settings"] | {"seed": 1}, "error": "it failed\n  somewhere"}]
    refused = 0
    for seed in seeds(3):
        (place / "rows.jsonl").write_bytes(damage.of_lines(both, random.Random(seed)))
        try:
            found = rows.latest(rows.read_rows(place))
            if found:
                write_report([row | {"to_loss": rows.to_losses(row.get("curve", []), [1.0])} for row in found], place)
        except SonewError as error:
            refused += 1
            check_end(1, f"sonew: {error}", f"seed {seed}")
        restored()
    assert refused


def test_studies(place: Path, restored: Restored) -> None:
    """The study is opened and resumed by a trial that trains nothing."""
    import optuna

    from sonew_compiled.bench import tuning
    from sonew_compiled.bench._study import open_study

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = tuning.TuneSettings(optimizer="adam", epochs=4)
    axes = tuning._axes(settings, tuning._preset(settings))

    def objective(trial: Any) -> float:
        for axis in axes:
            axis.suggest(trial, float("inf"))
        for epoch in range(1, 5):
            trial.report(trial.number % 3 + 1 / epoch, epoch)
            if epoch < 4 and trial.should_prune():
                raise optuna.TrialPruned
        trial.set_user_attr("test_loss", 1.5)
        return float(trial.number % 4)

    def go_on(folder: Path, trials: int) -> None:
        study = open_study(
            optuna, settings.to_json(), folder, epochs=4, sampler="tpe", seed=0, first_trials=len(tuning._FIRST_RATES)
        )
        for asked in tuning._stopped(study):
            study.enqueue_trial(asked)
        study.optimize(objective, n_trials=trials)
        tuning._result(study, settings, axes)

    go_on(place, 8)
    rows = [json.loads(line) for line in (place / "study.journal").read_text().splitlines()]
    refused = 0
    for seed in seeds(20):
        restored()
        (place / "study.journal").write_bytes(damage.of_lines(rows, random.Random(seed)))
        try:
            go_on(place, 1)
        except SonewError as error:
            refused += 1
            check_end(1, f"sonew: {error}", f"seed {seed}")
    assert refused
