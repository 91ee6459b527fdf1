"""`sonew tune`: one compilation for all trials, a study that goes on, and settings that mean what they say."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_compiled.bench._jax import JaxTraining
from sonew_compiled.bench._number import RuntimeNumber
from sonew_compiled.bench.tuning import BOUNDS, TuneSettings, tune
from sonew_compiled.errors import UsageError
from sonew_compiled.models import load_model
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import bind, learning_rates, load_dataset
from sonew_compiled.runtime.manifest import TensorSpec

Sonew = Callable[..., Any]
INPUTS = ("b1", "b2", "eps")
OTHER = {"b1": 0.8, "b2": 0.9, "eps": 1e-3}


@pytest.fixture
def folder(small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The working directory, with the small model and its data."""
    shutil.copy(small.path / "small_model.py", tmp_path)
    shutil.copy(small.data, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(**changed: Any) -> TuneSettings:
    asked = {"optimizer": "adam", "model": "small_model:model", "batch_size": 20, "epochs": 2, "data": "data.npz"}
    return TuneSettings(**{**asked, **changed})


def losses(training: JaxTraining, hyper: dict[str, float] | None = None) -> list[float]:
    """Of six steps on one batch."""
    batch = {"image": np.random.default_rng(0).random((20, 36), np.float32)}
    state = training.init(0)
    found = []
    for _ in range(6):
        state, loss = training.step(state, batch, 0.01, hyper)
        found.append(float(loss))
    return found


@pytest.mark.parametrize("optimizer", ["adam", "tridiag-sonew"])
def test_settings_are_inputs(folder: Path, optimizer: str) -> None:
    model = load_model("small_model:model")
    training = JaxTraining(model, optimizer_settings(optimizer), inputs=INPUTS)
    shipped = JaxTraining(model, optimizer_settings(optimizer))
    other = JaxTraining(model, optimizer_settings(optimizer, **OTHER))
    assert losses(training) == pytest.approx(losses(shipped), rel=1e-3)
    assert losses(training, OTHER) == pytest.approx(losses(other), rel=1e-3)
    assert losses(shipped) != pytest.approx(losses(other), rel=3e-3), "the settings must matter for this to test them"
    assert training.compilations == 1


@pytest.mark.parametrize("precision", ["bf16-pure", "f16-mixed"])
def test_the_state_is_stored_as_the_policy_says(folder: Path, precision: str) -> None:
    training = JaxTraining(load_model("small_model:model"), optimizer_settings("adam"), precision=precision)
    params, _ = training.init(0)
    expected = "float32" if precision.endswith("mixed") else "bfloat16"
    assert {leaf.dtype.name for leaf in params.values()} == {expected}
    full = losses(JaxTraining(load_model("small_model:model"), optimizer_settings("adam")))
    assert losses(training) == pytest.approx(full, rel=0.05)


def test_a_setting_that_would_be_fixed_is_refused() -> None:
    number = RuntimeNumber(0.9, np.float32(0.5))
    assert 0 <= number < 1
    assert 1 - number == 0.5
    with pytest.raises(TypeError):
        math.sqrt(number)  # type: ignore[arg-type]


def test_it_trains_as_the_compiled_step_does(folder: Path, sonew: Sonew, small: Any) -> None:
    """By the runtime's protocol: what `sonew run` of the same settings comes to."""
    ran = sonew("run", small.bundle, "--data", "data.npz", "--epochs", 2, "--learning-rate", 0.01, "--json", "-o", "r")
    fields = (TensorSpec(name="image", shape=(20, 36), dtype="float32"),)
    data = bind(load_dataset("data.npz").train, fields)
    training = JaxTraining(load_model("small_model:model"), optimizer_settings())
    rate = learning_rates("paper", peak=0.01, epochs=2, steps_per_epoch=data.steps_per_epoch)
    last = list(training.epochs(training.init(0), data, seed=0, epochs=2, rate=rate))[-1]
    assert last.steps == ran.json["steps"]
    assert training.mean_loss(last.state, data) == pytest.approx(ran.json["train_loss"], rel=1e-4)


def test_a_study_goes_on(folder: Path) -> None:
    said: list[str] = []
    first = tune(settings(), folder / "study", trials=2, say=said.append)
    assert (first.trials, first.compilations, len(said)) == (2, 1, 2)
    more = tune(settings(), folder / "study", trials=5, say=said.append)
    assert (more.trials, len(said)) == (5, 5)
    assert more.compilations <= 1
    assert more.train_loss <= first.train_loss
    assert more.best is not None
    for name, value in more.best.items():
        low, high = BOUNDS[name]
        assert low * 0.999 <= value <= high * 1.001
    done = tune(settings(), folder / "study", trials=5, say=said.append)
    assert (done.best, len(said)) == (more.best, 5)
    written = json.loads((folder / "study/best.json").read_text(encoding="utf-8"))
    assert written["best"] == more.best
    assert written["optimizer"] == "adam"


def test_the_first_trial_has_what_ships(folder: Path) -> None:
    result = tune(settings(sampler="random"), folder / "study", trials=1)
    preset = optimizer_settings("adam")
    assert result.best == pytest.approx(
        {"learning_rate": preset.learning_rate, "b1": preset.b1, "b2": preset.b2, "eps": preset.eps}
    )


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
        ("", 2, "--trials or --minutes"),
        ("--trials 1 --model nonsense", 2, "autoencoder"),
        ("--trials 1 --data nonsense.npz", 2, "nonsense.npz"),
        ("--trials 1 --optimizer adam --band 3", 2, "--band 3"),
        ("--trials 0", 2, "--trials"),
        ("--trials 1 -o damaged", 1, "damaged"),
    ],
)
def test_bad_input_is_one_line(folder: Path, sonew: Sonew, line: str, code: int, said: str) -> None:
    (folder / "damaged").mkdir()
    (folder / "damaged/study.journal").write_text("nonsense\nnonsense\n")
    ended = sonew("tune", "--model", "small_model:model", "--batch-size", 20, "--data", "data.npz", *line.split())
    assert (ended.code, ended.err.count("\n")) == (code, 1), ended.err
    assert said in ended.err
