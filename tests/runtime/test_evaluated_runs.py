"""Runs that are evaluated as they go: the same bits, test curves, the best checkpoint, patience, callbacks."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_compiled.errors import SonewError, UsageError, measured
from sonew_compiled.runtime import (
    Bundle,
    Dataset,
    Device,
    EpochMetrics,
    Program,
    TrainingState,
    TrainResult,
    TrainSettings,
    bind,
    evaluate,
    load_checkpoint,
    open_bundle,
    read_metrics,
    train,
)
from sonew_compiled.runtime.best import Best
from sonew_compiled.runtime.tensorfile import read_tensors

SETTINGS = TrainSettings(epochs=5, learning_rate=0.004, schedule="constant", warmup_epochs=0)  # of 10 steps each

# What is learnt is a bias, which makes the opposite examples worse from the first step on.
GETTING_WORSE = Dataset(
    name="opposites",
    train={"image": np.full((83, 2, 2), 0.1, np.float32)},
    test={"image": np.full((11, 2, 2), -0.1, np.float32)},
    fingerprint="0123456789abcdef",
)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture
def run(bundle: Bundle, cpu: Device, tmp_path: Path) -> Callable[..., TrainResult]:
    """Trains the tiny bundle with some of the settings replaced, in a folder of `tmp_path`."""

    def train_tiny(folder: str, data: Dataset = GETTING_WORSE, **changed: Any) -> TrainResult:
        given = {name: changed.pop(name) for name in list(changed) if name.startswith(("resume", "on_"))}
        return train(bundle, data, dataclasses.replace(SETTINGS, **changed), cpu, output=tmp_path / folder, **given)

    return train_tiny


def steps(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.glob("step-*.safetensors"))


def test_evaluation_changes_no_bit(run: Callable[..., TrainResult], tiny_data: Dataset, tmp_path: Path) -> None:
    often, never = run("often", tiny_data, keep=9), run("never", tiny_data, keep=9, evaluate_every=0)
    assert steps(tmp_path / "often") == [10, 20, 30, 40, 50]
    for step in (10, 20, 30, 40, 50):
        one, other = (tmp_path / name / f"step-{step:08d}.safetensors" for name in ("often", "never"))
        trained, expected = read_tensors(one), read_tensors(other)
        assert trained.keys() == expected.keys()
        assert all(trained[name].tobytes() == array.tobytes() for name, array in expected.items())
    assert (often.test_loss, often.train_loss) == (never.test_loss, never.train_loss)
    assert never.best_test_loss is None
    assert not any("test_loss" in row for row in read_metrics(tmp_path / "never"))


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (7, [5])])
def test_the_test_losses_are_those_of_the_epochs_checkpoints(
    run: Callable[..., TrainResult],
    bundle: Bundle,
    cpu: Device,
    tiny_data: Dataset,
    tmp_path: Path,
    every: int,
    epochs: list[int],
) -> None:
    result = run("run", tiny_data, keep=9, evaluate_every=every)
    losses = {row["step"]: row["test_loss"] for row in read_metrics(tmp_path / "run") if "test_loss" in row}
    assert list(losses) == [10 * epoch for epoch in epochs]
    program = Program.load(bundle, cpu)
    for step, loss in losses.items():
        tensors = load_checkpoint(tmp_path / "run" / f"step-{step:08d}.safetensors", bundle.manifest).tensors
        state = TrainingState.from_arrays(program, tensors)
        assert loss == evaluate(program, state.buffers, bind(tiny_data.test, bundle.manifest.batch))
    assert losses[50] == result.test_loss
    assert result.best_test_loss == min(losses.values())


def test_the_best_checkpoint_is_kept(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    result = run("run", keep=1, keep_best=True)
    losses = [row["test_loss"] for row in read_metrics(tmp_path / "run")]
    assert losses == sorted(losses)
    assert steps(tmp_path / "run") == [10, 50]
    assert result.best_checkpoint == tmp_path / "run" / "step-00000010.safetensors"
    assert result.best_test_loss == losses[0] < result.test_loss
    worth = f"train loss {measured(result.train_loss)}, test {measured(result.test_loss)}"
    assert repr(result) == f"TrainResult(50 steps: {worth}; {result.checkpoint})"
    # It is written even where no checkpoint would be, and the one before it goes.
    other = run("other", keep=1, keep_best=True, checkpoint_every=5, epochs=3)
    assert steps(tmp_path / "other") == [10, 30]
    assert other.best_checkpoint == tmp_path / "other" / "step-00000010.safetensors"
    assert run("run", resume=tmp_path / "run", keep=1).best_checkpoint is None
    assert steps(tmp_path / "run") == [10, 50]


def test_patience_stops_and_goes_on_where_it_was(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    whole = run("whole", patience=3)
    assert (whole.steps, whole.stopped_early, whole.best_test_loss) == (40, True, whole.best_test_loss)
    assert steps(tmp_path / "whole") == [20, 30, 40]
    for at in (7, 20, 25):
        stopped = run(f"{at}", patience=3, max_steps=at)
        assert not stopped.stopped_early
        resumed = run(f"{at}", patience=3, resume=stopped.checkpoint)
        assert resumed.stopped_early
        assert resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
        assert resumed.best_test_loss == whole.best_test_loss
    again = run("whole", patience=3, resume=tmp_path / "whole")
    assert (again.steps, again.stopped_early, again.test_loss) == (40, True, whole.test_loss)
    more = run("whole", patience=4, resume=tmp_path / "whole")
    assert (more.steps, more.stopped_early) == (50, False)


def test_callbacks_are_told_in_order(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    told: list[Any] = []
    metrics: list[EpochMetrics] = []

    def on_epoch(line: EpochMetrics) -> None:
        metrics.append(line)
        told.append(line.epoch)

    run(
        "run",
        epochs=2,
        on_step=lambda step, loss: told.append((step, loss)),
        on_epoch=on_epoch,
        on_checkpoint=lambda path, step: told.append((path.name, step, path.exists())),
    )
    assert [each if not isinstance(each, tuple) else each[0] for each in told] == [
        *range(1, 11),
        1,
        "step-00000010.safetensors",
        *range(11, 21),
        2,
        "step-00000020.safetensors",
    ]
    assert told[11] == ("step-00000010.safetensors", 10, True)
    assert [line.to_json() for line in metrics] == read_metrics(tmp_path / "run")
    assert metrics[0].loss == pytest.approx(np.mean([loss for _, loss in told[:10]]))

    def refuse(step: int, loss: float) -> None:
        raise KeyError("of the user's own")

    with pytest.raises(KeyError):
        run("other", on_step=refuse)


def test_settings_that_contradict_each_other_are_refused(refusal: Callable[..., str]) -> None:
    for changed, flag in (({"keep_best": True}, "--keep-best"), ({"patience": 2}, "--patience 2")):
        asked: dict[str, Any] = {"evaluate_every": 0, **changed}
        message = refusal(UsageError, lambda asked=asked: dataclasses.replace(SETTINGS, **asked))
        assert message == f"{flag} needs evaluations, and --evaluate-every is 0; give 1 or more"
    assert "--keep-best is 1; give True or False" in refusal(
        UsageError, lambda: dataclasses.replace(SETTINGS, keep_best=1)
    )
    settings = dataclasses.replace(SETTINGS, keep_best=True, patience=4, evaluate_every=2)
    assert settings.flags() == ["--evaluate-every", "2", "--patience", "4"], "a checkpoint remembers the best"


def test_the_best_of_a_run(tmp_path: Path, refusal: Callable[..., str]) -> None:
    best = Best()
    for step, loss in enumerate((3.0, 2.0, math.nan, 2.0, 2.5), 1):
        best = best.after(loss, step)
    assert best == Best(loss=2.0, step=2, since=3)
    assert [best.is_over(patience) for patience in (None, 3, 4)] == [False, True, False]
    for each in (best, Best()):
        assert Best.from_metadata(each.to_metadata(), source=tmp_path) == each
    assert Best.from_metadata({}, source=tmp_path) == Best()
    for name, value in (("best_test_loss", "nan"), ("best_step", "-1"), ("evaluations_since_best", "1" * 5000)):
        damaged = best.to_metadata() | {name: value + "x" if name.startswith("eval") else value}
        assert "is corrupt" in refusal(SonewError, lambda damaged=damaged: Best.from_metadata(damaged, source=tmp_path))
