"""What a step does besides its optimizer, in the rows of a benchmark and in a study."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sonew_compiled import StepSettings
from sonew_compiled.bench import _search, rows
from sonew_compiled.bench._flops import step_flops
from sonew_compiled.bench._jax import JaxTraining
from sonew_compiled.bench._lines import lines_of
from sonew_compiled.bench._row_format import check_row
from sonew_compiled.bench._row_tasks import compile_bundle
from sonew_compiled.bench._table import markdown
from sonew_compiled.bench.plan import Run, check_step, make_runs
from sonew_compiled.bench.studies import read_studies
from sonew_compiled.bench.tuning import TuneSettings, tune
from sonew_compiled.errors import UsageError
from sonew_compiled.models import load_model
from sonew_compiled.runtime import Device, Program, TrainingState, bind, evaluate, load_dataset, open_bundle

Sonew = Callable[..., Any]
STEP = StepSettings(clip_value=0.5, clip_norm=1.0, decay=0.5, no_decay=("d*",), freeze=("up",), ema=0.9)
FLAGS = [
    "--clip-value",
    "0.5",
    "--clip-norm",
    "1",
    "--decay",
    "0.5",
    "--no-decay",
    "d*",
    "--freeze",
    "up",
    "--ema",
    "0.9",
]


def run_of(step: StepSettings) -> Run:
    (run,) = make_runs(
        model="small_model:model",
        optimizers=["adam"],
        precisions=["f32"],
        places=[("cpu", "local-task")],
        batch_size=20,
        seeds=[0],
        epochs=None,
        steps=1,
        data="data.npz",
        data_dir=None,
        step=step,
    )
    return run


def test_a_row_is_found_by_its_step() -> None:
    """Rows that differ in nothing else are two; a row without settings is as rows were before there were any."""
    asked, plain = run_of(STEP), run_of(StepSettings())
    assert "step" not in plain.settings()
    assert asked.bundle_name != plain.bundle_name
    written = {"kind": "time", "machine_id": "aaaa", "schema": 2, "error": None}
    read = [
        check_row(json.loads(json.dumps({**written, "settings": run.settings()})), "row")
        for run in (asked, plain, replace(asked, step=replace(STEP, clip_norm=2.0)), asked)
    ]
    assert [Run.from_settings(each["settings"]) for each in read[:2]] == [asked, plain]
    assert rows.latest(read) == read[:3]
    words = "adam clip_value 0.5 clip_norm 1.0 decay 0.5 no_decay d* freeze up ema 0.9 f32"
    assert [line.label for line in lines_of(read)][:2] == [words, "adam f32"]
    assert "| clip_value 0.5, clip_norm 1.0, decay 0.5, no_decay d*, freeze up, ema 0.9 |" in markdown(read)
    with pytest.raises(ValueError, match="clip_norm"):
        check_row({**written, "settings": {**asked.settings(), "step": {"clip_norm": "much"}}}, "row")


def test_the_step_of_jax_beside_it_is_the_same(folder: Path, cpu: Device) -> None:
    """The compiled step and that of `jax.jit` lose the same, and so do their averages; a frozen half costs less."""
    step = replace(STEP, no_decay=())
    run = run_of(step)
    compiled = compile_bundle(run.settings(), "frozen.bundle")
    bundle = open_bundle(Path("frozen.bundle"))
    assert bundle.manifest.step == step.to_json()
    program = Program.load(bundle, cpu)
    data = bind(load_dataset("data.npz").train, bundle.manifest.batch)
    state = TrainingState.initial(program, seed=3)
    model = load_model(run.model)
    training = JaxTraining(model, run.optimizer, settings=step)
    beside = training.init(3)
    for index in range(8):
        batch = data.training_batch(3, index)
        beside, expected = training.step(beside, batch, 0.05)
        assert state.step(batch, 0.05) == pytest.approx(float(expected), rel=1e-5)
    assert evaluate(program, state.buffers, data) == pytest.approx(training.mean_loss(beside, data), rel=1e-5)
    assert np.array_equal(np.asarray(training.init(3)[0]["up"]), np.asarray(beside[0]["up"])), "it is frozen"
    whole = run_of(replace(step, freeze=()))
    assert 0 < compiled["step_flops"] == step_flops(model, run) < step_flops(model, whole)


def test_patterns_are_checked_before_a_run(folder: Path, sonew: Sonew) -> None:
    model = load_model("small_model:model")
    check_step(model, STEP)
    for step, said in (
        (replace(STEP, freeze=("x*",)), "--freeze 'x\\*' matches no parameter; give a pattern of down, up"),
        (replace(STEP, no_decay=("u*",)), "--no-decay 'u\\*' matches no parameter; give a pattern of down"),
        (replace(STEP, freeze=("*",)), "all are frozen"),
    ):
        with pytest.raises(UsageError, match=said):
            check_step(model, step)
    common = ("--model", "small_model:model", "--data", "data.npz", "--batch-size", 20, "--dry-run")
    planned = sonew("bench", "--optimizer", "adam", "--steps", 2, *common, *FLAGS, "--json")
    assert planned.code == 0, planned.err
    words = "adam --clip-value 0.5 --clip-norm 1 --decay 0.5 --no-decay d* --freeze up --ema 0.9 f32 cpu on"
    assert planned.json["runs"][0].startswith(words)
    refused = sonew("bench", "--preset", "speed", "--clip-norm", 1)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--clip-norm does not go with --preset speed" in refused.err


def test_a_study_has_a_step(folder: Path, sonew: Sonew, monkeypatch: pytest.MonkeyPatch) -> None:
    """All trials are compiled with it, the command that uses the best settings has it, and a resume compares it."""
    compiled: list[StepSettings] = []

    class Trainer:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def epochs(self, **_: Any) -> Any:
            yield SimpleNamespace(epoch=1, loss=1.0, state=None)

        def losses(self, state: None) -> tuple[float, float]:
            return 1.0, 2.0

    def compile_step(*_: Any, step: StepSettings, **__: Any) -> Any:
        compiled.append(step)
        return SimpleNamespace(manifest=SimpleNamespace(setting_limits={}), digest="of a step")

    monkeypatch.setattr(_search, "Trainer", Trainer)
    monkeypatch.setattr(_search, "compile_step", compile_step)
    common = ("--optimizer", "adam", "--model", "small_model:model", "--data", "data.npz", "--epochs", 1)
    ended = sonew("tune", *common, *FLAGS, "--trials", 1, "-o", "study", "--json")
    assert ended.code == 0, ended.err
    assert compiled == [STEP]
    assert (ended.json["clip_norm"], ended.json["freeze"]) == (1.0, ["up"])
    assert ended.json["command"].endswith(
        "--clip-value 0.5 --clip-norm 1 --decay 0.5 --no-decay 'd*' --freeze up --ema 0.9"
    )
    assert read_studies(Path("study"))[0].best == ended.json["best"]
    again = sonew("tune", *common, *FLAGS[2:], "--trials", 2, "-o", "study")
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "has clip-value 0.5, not None: give the same" in again.err
    asked = TuneSettings(optimizer="adam", model="small_model:model", data="data.npz", epochs=1, step=STEP)
    assert tune(asked, Path("study"), trials=2).trials == 2
