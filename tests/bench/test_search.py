"""The search of `sonew tune` over trials whose losses are known, so that nothing is compiled or trained."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest

from sonew_compiled.bench import _search, study_picture, tuning
from sonew_compiled.bench._forms import forms_of, searched
from sonew_compiled.bench._trial import TrialEpoch
from sonew_compiled.bench.enqueued import read_enqueued
from sonew_compiled.bench.studies import read_studies
from sonew_compiled.bench.tuning import TuneResult, TuneSettings, tune
from sonew_compiled.errors import UsageError
from sonew_compiled.presets import optimizer_settings

EPOCHS = 18
# A ninth and a third of them.
RUNGS = (2, 6)
BEST_RATE = 3e-3
# With a larger rate a trial diverges in this epoch.
TOO_FAST, DIVERGES_IN = 0.01, 1

UNGRAFTED = {"eps_mode": "absolute", "grafting": "none", "rank1": "sonew"}


def loss_after(epoch: int, rate: float, b1: float) -> float:
    """The loss of a trial: least at one rate, and falling with the epochs."""
    return abs(math.log10(rate / BEST_RATE)) + abs(math.log10((1 - b1) / 0.1)) / 3 + 1 / epoch


class Trainer:
    """A trainer whose losses are `loss_after`."""

    trained = 0
    """The epochs of all."""
    before_epoch = staticmethod(lambda trained: None)
    """Is called with that number before each."""

    def __init__(self, bundle: Any, dataset: Any, *, device: str) -> None:
        self.device = device

    def epochs(self, *, epochs: int, learning_rate: float, settings: Any, stopped: Any, **_: Any) -> Iterator[Any]:
        for epoch in range(1, epochs + 1):
            if stopped():
                return
            Trainer.before_epoch(Trainer.trained)
            Trainer.trained += 1
            diverges = learning_rate > TOO_FAST and epoch == DIVERGES_IN
            self.last = math.nan if diverges else loss_after(epoch, learning_rate, settings["b1"])
            yield TrialEpoch(epoch=epoch, loss=self.last, state=None)  # type: ignore[arg-type]

    def losses(self, state: None) -> tuple[float, float]:
        return self.last, self.last + 1


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = SimpleNamespace(setting_limits={}, precision="f32")
    monkeypatch.setattr(_search, "Trainer", Trainer)
    bundle = SimpleNamespace(manifest=manifest, digest="of a step")
    monkeypatch.setattr(_search, "compile_step", lambda *_, **__: bundle)
    monkeypatch.setattr(_search, "load_dataset", lambda *_, **__: SimpleNamespace(fingerprint="of data"))
    monkeypatch.setattr(Trainer, "trained", 0)


def settings(**changed: Any) -> TuneSettings:
    return TuneSettings(**{"optimizer": "adam", "model": "my:model", "epochs": EPOCHS, **changed})


def halved(rates: list[tuple[float, float]], known: int) -> list[int]:
    """The epochs of each trial by successive halving in this order; the first `known` are trained to the end."""
    seen: dict[int, list[float]] = {rung: [] for rung in RUNGS}
    epochs = []
    for index, (rate, b1) in enumerate(rates):
        end = DIVERGES_IN if rate > TOO_FAST else EPOCHS
        for rung in RUNGS:
            if rung >= end:
                break
            seen[rung].append(loss_after(rung, rate, b1))
            place = sorted(seen[rung]).index(seen[rung][-1])
            if place >= max(len(seen[rung]) // 3, 1) and index >= known:
                end = rung
        epochs.append(end)
    return epochs


def test_a_budget_is_spent_by_successive_halving(tmp_path: Path) -> None:
    said: list[str] = []
    # Around a rate with which some trials diverge.
    asked = settings(sampler="random", learning_rate=2e-3)
    result = tune(asked, tmp_path / "s", budget=300, say=said.append)
    assert 300 - EPOCHS < result.epochs_spent <= 300
    assert result.epochs_spent == sum(each["epochs"] for each in result.each) == Trainer.trained
    assert result.epochs_again == 0
    order = [(each["learning_rate"], each["b1"]) for each in result.each]
    assert [each["epochs"] for each in result.each] == halved(order, known=1)
    ends = {each["ended"]: each for each in result.each}
    assert ends.keys() == {"whole", "stopped", "diverged"}
    assert {each["epochs"] for each in result.each if each["ended"] == "stopped"} == set(RUNGS)
    assert result.stopped == sum(each["ended"] == "stopped" for each in result.each)
    assert (ends["diverged"]["epochs"], ends["diverged"]["epoch_loss"]) == (DIVERGES_IN, None)
    stopped = ends["stopped"]
    assert stopped["epoch_loss"] == loss_after(stopped["epochs"], stopped["learning_rate"], stopped["b1"])
    assert (stopped["train_loss"], stopped["test_loss"]) == (None, None)
    assert result.train_loss == min(each["train_loss"] for each in result.each if each["ended"] == "whole")
    assert result.test_loss == result.train_loss + 1
    assert len(said) == result.trials == len(result.each)
    assert said[-1].endswith(f"; {result.epochs_spent} of 300 epochs spent")
    (read,) = read_studies(tmp_path / "s")
    assert (list(read.each), read.epochs_spent) == (list(result.each), result.epochs_spent)
    more = tune(asked, tmp_path / "s", budget=300)
    assert more == result, "nothing is left to do"


def test_a_study_that_was_interrupted_ends_like_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ctrl-C while a trial is trained, and by the end of the process while Optuna is asked for one."""
    whole = tune(settings(), tmp_path / "whole", budget=200)
    trained = Trainer.trained
    monkeypatch.setattr(Trainer, "trained", 0)
    at = [5, 30, 31, 47, 90]
    asked = [2, 4]

    def stop(trained: int) -> None:
        if at and trained == at[0]:
            del at[0]
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "before_epoch", stop)
    set_attribute = optuna.trial.Trial.set_user_attr

    def cut(trial: Any, key: str, value: Any) -> None:
        if key == "number" and asked and value == asked[0]:
            del asked[0]
            raise KeyboardInterrupt
        set_attribute(trial, key, value)

    monkeypatch.setattr(optuna.trial.Trial, "set_user_attr", cut)
    stops = 0
    while True:
        try:
            resumed = tune(settings(), tmp_path / "cut", budget=200)
        except KeyboardInterrupt:
            stops += 1
            continue
        break
    assert stops == 7
    assert (resumed.each, resumed.best, resumed.epochs_spent) == (whole.each, whole.best, whole.epochs_spent)
    assert whole.epochs_again == 0
    assert resumed.epochs_again == Trainer.trained - trained > 0


def test_several_trials_at_once_keep_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "machine_threads", lambda: 2)
    met = threading.Barrier(2, timeout=60)

    def meet(trained: int) -> None:
        if trained == 0 and not met.broken:
            met.wait()  # a single trial would wait in vain

    monkeypatch.setattr(Trainer, "before_epoch", meet)
    result = tune(settings(sampler="random"), tmp_path / "s", budget=100, jobs=2)
    assert 100 - 2 * EPOCHS < result.epochs_spent <= 100
    assert [each["trial"] for each in result.each] == list(range(result.trials))
    for each in result.each:
        if each["ended"] == "whole":
            assert each["train_loss"] == loss_after(EPOCHS, each["learning_rate"], each["b1"])
    with pytest.raises(UsageError, match="--jobs 3 is more than the 2 processor threads"):
        tune(settings(), tmp_path / "s", budget=100, jobs=3)


def test_grafted_and_ungrafted_forms_are_searched_alike(tmp_path: Path) -> None:
    asked = settings(optimizer="tridiag-sonew", sampler="random")
    result = tune(asked, tmp_path / "s", budget=600)
    shipped = optimizer_settings("tridiag-sonew").learning_rate
    centers = {("adam", "relative"): shipped, ("adam", "absolute"): shipped, ("none", "absolute"): 2.2602e-5}
    forms: dict[tuple[str, str], list[dict[str, Any]]] = {form: [] for form in centers}
    for each in result.each:
        forms[each["grafting"], each["eps_mode"]].append(each)
    spent = [sum(each["epochs"] for each in trials) for trials in forms.values()]
    assert max(spent) - min(spent) <= EPOCHS
    for form, center in centers.items():
        assert forms[form][0]["learning_rate"] == center
        assert forms[form][0]["ended"] == "whole"
        rates = [each["learning_rate"] for each in forms[form]]
        assert center / 10.001 <= min(rates) < center / 3 < center * 3 < max(rates) <= center * 10.001
    first = forms["none", "absolute"][0]
    assert {name: first[name] for name in UNGRAFTED} == UNGRAFTED
    best = min((each for each in result.each if each["train_loss"]), key=lambda each: each["train_loss"])
    assert result.best is not None
    assert result.best["grafting"] == best["grafting"]
    assert ("--grafting none" in str(result.command)) is (best["grafting"] == "none")


def test_the_best_of_a_study_is_the_same_trial_elsewhere(tmp_path: Path) -> None:
    """It names what is compiled in, which another study need not start from."""
    given = {"grafting": "none"}
    done = tune(settings(optimizer="tridiag-sonew", settings=given), tmp_path / "s", trials=1)
    assert done.best is not None
    assert {name: done.best[name] for name in UNGRAFTED} == UNGRAFTED
    (enqueued,) = read_enqueued([str(tmp_path / "s")], "tridiag-sonew")
    *_, form = forms_of(settings(optimizer="tridiag-sonew", learning_rate=1e-5, enqueue=(enqueued,)))
    assert {name: form.optimizer.values[name] for name in UNGRAFTED} == UNGRAFTED
    assert form.settings_of(form.known[-1]) == done.best


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"compile_step": SimpleNamespace(digest="of another")}, "another step: its model, a package or the processor"),
        ({"load_dataset": SimpleNamespace(fingerprint="of another")}, "other data"),
    ],
)
def test_a_study_of_another_step_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], said: str
) -> None:
    """Its trials and those that come could not be compared."""
    tune(settings(), tmp_path / "s", trials=1)
    before = tune(settings(), tmp_path / "s", trials=2)
    for name, made in changed.items():
        if name == "compile_step":
            made.manifest = SimpleNamespace(setting_limits={}, precision="f32")
        monkeypatch.setattr(_search, name, lambda *_, made=made, **__: made)
    with pytest.raises(UsageError, match=f"was made with {said}.*give another -o/--output"):
        tune(settings(), tmp_path / "s", trials=3)
    assert tune(settings(), tmp_path / "s", trials=2).each == before.each, "nothing is lost"


@pytest.mark.parametrize("b2", [0.9999999, 0.999999, 0.99, 0.0])
def test_a_decay_is_searched_as_it_is_given(b2: float) -> None:
    """A decay that is rounded to six digits is 1, with which nothing is averaged."""
    (form,) = forms_of(settings(settings={"b2": b2}))
    assert form.values_of(form.known[0])["b2"] == b2
    for end in searched(form)["b2"]:
        assert 0 <= np.float32(end) < 1


@pytest.mark.parametrize(
    ("given", "rates"),
    [
        ({}, [7e-3, 7e-3, 2.2602e-5]),
        ({"settings": {"grafting": "none"}}, [2.2602e-5]),
        ({"settings": {"grafting": "none", "eps_mode": "relative"}}, [2.2602e-5]),
        ({"settings": {"grafting": "sgd"}}, [7e-3, 7e-3]),
        ({"settings": {"flatten": "row"}}, [7e-3, 7e-3, 2.2602e-5]),
        ({"settings": {"b1": 0.8}}, [7e-3]),
        ({"settings": {"b1": 0.8, "grafting": "none"}}, [2.2602e-5]),
        ({"learning_rate": 1e-3}, [1e-3]),
        ({"learning_rate": 1e-3, "settings": {"grafting": "none"}}, [1e-3]),
        ({"precision": "bf16"}, [1.3e-2, 7e-3, 2.2602e-5]),
    ],
)
def test_the_forms_of_what_is_given(given: dict[str, Any], rates: list[float]) -> None:
    forms = forms_of(settings(optimizer="tridiag-sonew", **given))
    assert [form.optimizer.learning_rate for form in forms] == rates
    for form in forms:
        assert all(form.optimizer.values[name] == value for name, value in given.get("settings", {}).items())


def test_a_search_starts_from_what_is_known() -> None:
    """From what shipped, the best of the studies on this model, and what is enqueued, then with other rates."""
    own = {"learning_rate": 1e-4, "b1": 0.5}
    (form,) = forms_of(settings(model="autoencoder", enqueue=(own, own)))
    shipped = {"learning_rate": 7e-4, "b1": 0.9, "b2": 0.99, "eps": 1e-6}
    best = {"learning_rate": 0.000692616, "b1": 0.716581, "b2": 0.975859, "eps": 7.10759e-06}
    assert [form.values_of(each) for each in form.known] == [shipped, best, {**shipped, **own}]
    assert [form.values_of(each)["learning_rate"] for each in form.others] == [2.1e-3, 0.000233333]
    assert searched(form)["b1"] == (0.5, 0.975), "widened to what is enqueued"
    (elsewhere,) = forms_of(settings(enqueue=(own,)))
    assert [elsewhere.values_of(each) for each in elsewhere.known] == [shipped, {**shipped, **own}]

    *grafted, ungrafted = forms_of(settings(optimizer="band-sonew", enqueue=({"grafting": "none", "b1": 0.8},)))
    assert [len(form.known) for form in grafted] == [1, 1]
    assert [ungrafted.values_of(each)["b1"] for each in ungrafted.known] == [0.954923, 0.8]
    forms = forms_of(settings(optimizer="band-sonew", enqueue=({"band": 2},)))
    assert [form.told["band"] for form in forms] == [4, 4, 4, 2]
    with pytest.raises(UsageError, match="--enqueue has grafting=none, but --grafting adam"):
        forms_of(settings(optimizer="band-sonew", settings={"grafting": "adam"}, enqueue=({"grafting": "none"},)))


def test_what_is_enqueued_is_read(tmp_path: Path) -> None:
    done: TuneResult = tune(settings(sampler="random"), tmp_path / "s", trials=4)
    texts = ("learning-rate=2e-5, b1=0.5", str(tmp_path / "s"), str(tmp_path / "s/best.json"))
    assert read_enqueued(texts, "adam") == ({"learning_rate": 2e-5, "b1": 0.5}, done.best, done.best)
    line = json.dumps(json.loads((tmp_path / "s/best.json").read_text()))
    (tmp_path / "all.jsonl").write_text(f"{line}\n{line.replace('adam', 'muon')}\n")
    assert read_enqueued([str(tmp_path / "all.jsonl")], "adam") == (done.best,)
    assert read_enqueued(["band=2,grafting=none"], "band-sonew") == ({"band": 2, "grafting": "none"},)
    for text, said in (
        ("learning_rate", "does not exist"),
        ("b1=0.5,0.6", "'0.6'"),
        ("b1=0.5,b1=0.6", "b1 twice"),
        ("b3=0.5", "b3=0.5, which is no setting; give some of learning_rate, b1, b2, eps"),
        ("band=2", "does not go with adam"),
        ("eps=x", "--eps is 'x' in --enqueue"),
        (str(tmp_path / "s"), "no study of muon"),
    ):
        with pytest.raises(UsageError, match=said):
            read_enqueued([text], "muon" if said == "no study of muon" else "adam")
    for text in ("learning_rate=0", "learning_rate=nan", "eps=-1", "b1=1"):
        with pytest.raises(UsageError):
            forms_of(settings(enqueue=read_enqueued([text], "adam")))


def test_another_beginning_is_refused(tmp_path: Path) -> None:
    tune(settings(), tmp_path / "s", trials=1)
    with pytest.raises(UsageError, match="begins with other trials"):
        tune(settings(enqueue=({"b1": 0.5},)), tmp_path / "s", trials=2)
    with pytest.raises(UsageError, match="--budget 17 is less than one trial of 18 epochs"):
        tune(settings(), tmp_path / "s", budget=17)


def test_a_study_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each panel has all trials: those that were trained, by form, those that were stopped, and the best."""
    result = tune(settings(optimizer="tridiag-sonew", sampler="random"), tmp_path / "s", budget=300)
    drawn: list[Any] = []
    monkeypatch.setattr(study_picture, "save", lambda figure, path: drawn.append(figure))
    (study,) = read_studies(tmp_path / "s")
    study_picture.draw_studies({"mine": study}, tmp_path / "study.png")
    panels = drawn[0].axes
    assert [axes.get_xlabel() for axes in panels] == ["learning_rate", "1 - b1", "1 - b2", "eps"]
    assert panels[0].get_title(loc="left") == f"mine: {result.trials} trials, {result.epochs_spent} epochs"
    *drawn_trials, best = (sorted(zip(*line.get_data(), strict=True)) for line in panels[1].lines)
    forms = [("adam", "relative"), ("adam", "absolute"), ("none", "absolute")]

    def points(form: tuple[str, str], ended: str, loss: str) -> list[tuple[float, float]]:
        of = [each for each in result.each if ((each["grafting"], each["eps_mode"]), each["ended"]) == (form, ended)]
        return sorted((1 - each["b1"], each[loss]) for each in of)

    ends = (("whole", "train_loss"), ("stopped", "epoch_loss"))
    assert drawn_trials == [points(form, *end) for form in forms for end in ends]
    assert result.best is not None
    assert best == [(1 - result.best["b1"], result.train_loss)]


def test_studies_and_runs_are_drawn_apart(tmp_path: Path, sonew: Any) -> None:
    tune(settings(sampler="random"), tmp_path / "s", trials=4)
    drawn = sonew("plot", tmp_path / "s", tmp_path / "s/best.json", "-o", tmp_path / "two.png", "--json")
    assert (drawn.code, drawn.json["studies"]) == (0, ["adam, s", "adam, best.json"])
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")
    mixed = sonew("plot", tmp_path / "s", tmp_path, "-o", tmp_path / "no.png")
    assert (mixed.code, mixed.err) == (
        2,
        f"sonew: {tmp_path / 's'} is a study and {tmp_path} is none; draw studies and runs apart\n",
    )
