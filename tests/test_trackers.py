"""Experiment trackers, with the calls of their libraries noted down; docs/how-to/training.md names the libraries."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sonew_compiled.runtime import EpochMetrics
from sonew_compiled.trackers import TRACKERS, Trackers

Calls = list[tuple[Any, ...]]


def epoch(number: int) -> EpochMetrics:
    return EpochMetrics(
        step=10 * number,
        epoch=number,
        loss=1 / number,
        learning_rate=0.5,
        seconds=1.0,
        examples_per_second=10.0,
        test_loss=float("inf"),
        test_metrics={"accuracy": 0.25},
    )


VALUES = {
    "epoch": 1,
    "loss": 1.0,
    "learning_rate": 0.5,
    "seconds": 1.0,
    "examples_per_second": 10.0,
    "test_accuracy": 0.25,
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The calls of the three libraries, which need not be installed."""
    made: Calls = []

    def noted(name: str, result: Any = None) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            made.append((name, *args, options) if options else (name, *args))
            return result

        return call

    writer = SimpleNamespace(**{name: noted(name) for name in ("add_scalar", "flush", "close")})
    run = SimpleNamespace(**{name: noted(name) for name in ("log", "finish")})
    libraries: dict[str, dict[str, Any]] = {
        "tensorboard": {},
        "tensorboard.summary": {"Writer": noted("Writer", writer)},
        "wandb": {"init": noted("init", run)},
        "mlflow": {name: noted(name) for name in ("start_run", "log_params", "log_metrics", "end_run")},
    }
    for name, contents in libraries.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_each_tracker_gets_the_numbers_with_their_step(calls: Calls) -> None:
    lines: list[str] = []
    trackers = Trackers(list(TRACKERS), folder=Path("runs/a"), settings={"epochs": 2}, say=lines.append)
    assert calls == []
    trackers.epoch(epoch(1))
    trackers.close()
    assert lines == []
    assert calls == [
        ("Writer", "runs/a/tensorboard"),
        *(("add_scalar", name, value, 10) for name, value in VALUES.items()),
        ("flush",),
        ("init", {"name": "a", "dir": "runs/a", "config": {"epochs": 2}}),
        ("log", VALUES, {"step": 10}),
        ("start_run", {"run_name": "a"}),
        ("log_params", {"epochs": 2}),
        ("log_metrics", VALUES, {"step": 10}),
        ("close",),
        ("finish",),
        ("end_run",),
    ]


def test_a_tracker_that_fails_is_left_out(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    def fail(*args: Any, **options: Any) -> None:
        raise ConnectionError("no answer\nfrom the server")

    monkeypatch.setattr(sys.modules["mlflow"], "log_metrics", fail)
    trackers = Trackers(["mlflow", "wandb"], folder=Path("a"), settings={}, say=lines.append)
    trackers.epoch(epoch(1))
    trackers.epoch(epoch(2))
    trackers.close()
    assert lines == ["mlflow receives nothing more of this run (no answer); training goes on"]
    assert [name for name, *_ in calls] == ["start_run", "log_params", "init", "log", "log", "end_run", "finish"]


def test_a_missing_library_is_named_with_its_extra(
    sonew: Callable[..., Any], small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    line = ("run", small.bundle, "--data", small.data, "-o", tmp_path / "run", "--log", "wandb")
    result = sonew(*line)
    assert (result.code, result.out) == (1, "")
    assert "sonew run --log wandb needs wandb, which is not installed: " in result.err
    assert "[wandb]" in result.err
    assert not list((tmp_path / "run").glob("*"))
