"""`sonew tune`: one compilation for all trials, resumed studies, and the effect of each setting."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonew_compiled.bench import _trial, tuning
from sonew_compiled.bench.tuning import RATE_FACTOR, TuneSettings, tune
from sonew_compiled.errors import UsageError
from sonew_compiled.presets import optimizer_settings, record_of

Sonew = Callable[..., Any]


def settings(**changed: Any) -> TuneSettings:
    asked = {"optimizer": "adam", "model": "small_model:model", "batch_size": 20, "epochs": 2, "data": "data.npz"}
    return TuneSettings(**{**asked, **changed})


def test_a_trial_trains_as_a_run_does(folder: Path, sonew: Sonew, small: Any) -> None:
    """A trial follows the runtime's protocol, and ends like `sonew run` with the same settings."""
    flags = ("--data", "data.npz", "--epochs", 2, "--learning-rate", 0.01, "--seed", 3)
    ran = sonew("run", small.bundle, *flags, "--json", "-o", "r")
    asked = settings(optimizer="tridiag-sonew", learning_rate=0.01, seed=3)
    result = tune(asked, folder / "study", trials=1)
    assert result.train_loss == pytest.approx(ran.json["train_loss"], rel=1e-4)
    assert result.test_loss == pytest.approx(ran.json["test_loss"], rel=1e-4)


def test_a_study_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compilations: list[object] = []
    compiled = _trial.compile_training
    monkeypatch.setattr(_trial, "compile_training", lambda *a, **k: compilations.append(a) or compiled(*a, **k))
    said: list[str] = []
    first = tune(settings(), folder / "study", trials=2, say=said.append)
    assert (first.trials, len(said)) == (2, 2)
    more = tune(settings(), folder / "study", trials=6, say=said.append)
    assert (more.trials, len(said)) == (6, 6)
    assert len(compilations) == 2, "a call compiles, not a trial"
    assert more.train_loss <= first.train_loss
    assert more.best is not None
    preset = optimizer_settings("adam").to_json()
    factors = {"learning_rate": RATE_FACTOR, "b1": 4.0, "b2": 5.0, "eps": 30.0}
    assert more.best.keys() == factors.keys()
    for name, value in more.best.items():
        found, shipped = (1 - x if name in ("b1", "b2") else x for x in (value, preset[name]))
        assert shipped / factors[name] * 0.999 <= found <= shipped * factors[name] * 1.001
    done = tune(settings(), folder / "study", trials=6, say=said.append)
    assert (done.best, len(said)) == (more.best, 6)
    written = json.loads((folder / "study/best.json").read_text(encoding="utf-8"))
    assert written["best"] == more.best
    assert len(written["each"]) == 6
    losses = {"train_loss": more.train_loss, "test_loss": more.test_loss}
    (best,) = (each for each in written["each"] if each["train_loss"] == more.train_loss)
    assert best.items() >= {**more.best, **losses, "epochs": 2, "ended": "whole"}.items()
    assert written["optimizer"] == "adam"


def test_no_decay_is_negative(folder: Path) -> None:
    """Four times the distance of Nesterov's preset from 1 would make a decay negative."""
    b1 = record_of("nesterov").setting("b1")
    assert b1 is not None
    assert 1 - b1.search * (1 - b1.default) < 0
    result = tune(settings(optimizer="nesterov", sampler="random", epochs=1), folder / "study", trials=12)
    decays = [each["b1"] or 0.0 for each in result.each]
    assert min(decays) >= 0
    assert max(decays) < 1
    assert min(decays[3:]) < 0.3


def test_the_first_trials_have_what_ships(folder: Path) -> None:
    said: list[str] = []
    result = tune(settings(sampler="random"), folder / "study", trials=1)
    tune(settings(sampler="random"), folder / "study", trials=3, say=said.append)
    assert [line.partition(": ")[2].partition(":")[0] for line in said] == [
        f"learning_rate {rate}, b1 0.9, b2 0.99, eps 1e-06" for rate in ("0.0021", "0.0002333")
    ]
    preset = optimizer_settings("adam")
    assert result.best == pytest.approx({"learning_rate": preset.learning_rate, **preset.values})


def test_a_stopped_trial_is_begun_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(_trial.Trainer, "losses", stop)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                tune(settings(epochs=1), folder / "study", trials=4)
    result = tune(settings(epochs=1), folder / "study", trials=4)
    shipped = optimizer_settings("adam").learning_rate
    rates = [float(f"{shipped * factor:.6g}") for factor in (1, 3, 1 / 3)]
    assert sorted(each["learning_rate"] for each in result.each if each["learning_rate"] in rates) == sorted(rates)
    assert result.trials == 4


def test_trials_have_the_same_numbers_however_many_run_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first three, whose settings are known; one alone has all cores, and two have one each."""
    monkeypatch.setattr(tuning, "machine_threads", lambda: 2)
    alone = tune(settings(epochs=1), folder / "alone", trials=3)
    together = tune(settings(epochs=1), folder / "together", trials=3, jobs=2)
    assert alone.each == together.each
    assert len({each["train_loss"] for each in alone.each}) == 3


def test_no_trial_finds_the_state_of_another_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[weakref.ref[Any]] = []
    initial = _trial.TrainingState.initial

    def noted(*arguments: Any, **options: Any) -> Any:
        assert not [each for each in states if each() is not None]
        state = initial(*arguments, **options)
        states.append(weakref.ref(state))
        return state

    monkeypatch.setattr(_trial.TrainingState, "initial", noted)
    gc.disable()
    try:
        result = tune(settings(epochs=4, sampler="random"), folder / "study", trials=10)
    finally:
        gc.enable()
    assert len(states) == 10
    assert any(each["epochs"] < 4 for each in result.each), "some were pruned"


def test_the_command_compiles(folder: Path, sonew: Sonew) -> None:
    ended = sonew(
        *("tune", "--optimizer", "adam", "--model", "small_model:model", "--batch-size", 20, "--data", "data.npz"),
        *("--epochs", 1, "--trials", 1, "-o", "study", "--json"),
    )
    assert ended.code == 0, ended.err
    words = ended.json["command"].split()
    assert words[:2] == ["sonew", "compile"]
    compiled = sonew(*words[1:], "-o", "tuned.bundle")
    assert compiled.code == 0, compiled.err
    manifest = json.loads((folder / "tuned.bundle/manifest.json").read_text(encoding="utf-8"))
    assert manifest["optimizer"]["b2"] == ended.json["best"]["b2"]
    assert manifest["defaults"]["learning_rate"] == ended.json["best"]["learning_rate"]


def test_a_study_of_other_settings_is_refused(folder: Path) -> None:
    tune(settings(), folder / "study", trials=1)
    with pytest.raises(UsageError, match="has epochs 2, not 3"):
        tune(settings(epochs=3), folder / "study", trials=2)
    assert tune(settings(), folder / "study", trials=1).trials == 1, "nothing is lost"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("", 2, "--budget, --trials or --minutes"),
        ("--trials 1 --model nonsense", 2, "autoencoder"),
        ("--trials 1 --data nonsense.npz", 2, "nonsense.npz"),
        ("--trials 1 --optimizer adam --band 3", 2, "--band 3"),
        ("--trials 0", 2, "--trials"),
        ("--budget 19", 2, "--budget 19 is less than one trial of 20 epochs; give at least 20, or fewer --epochs"),
        ("--trials 1 --jobs 10000", 2, "--jobs 10000 is more than the "),
        ("--trials 1 --enqueue band=2 --optimizer adam", 2, "band=2, which does not go with adam"),
        ("--trials 1 --enqueue nothing.json", 2, "nothing.json does not exist"),
        ("--trials 1 --enqueue damaged/study.journal", 1, "damaged/study.journal is not the best.json of a study"),
        ("--trials 1 -o damaged", 1, "damaged"),
        ("--minutes nan", 2, "give a positive number of minutes"),
        ("--minutes 1e-9", 1, "no trial ended before the limit was reached; give more --minutes"),
        ("--trials 1 --batch-size 20000 --dry-run", 2, "--batch-size is 20000; data.npz has 180 examples"),
    ],
)
def test_bad_input_is_one_line(folder: Path, sonew: Sonew, line: str, code: int, said: str) -> None:
    (folder / "damaged").mkdir()
    (folder / "damaged/study.journal").write_text("nonsense\nnonsense\n")
    ended = sonew("tune", "--model", "small_model:model", "--batch-size", 20, "--data", "data.npz", *line.split())
    assert (ended.code, ended.err.count("\n")) == (code, 1), ended.err
    assert said in ended.err
