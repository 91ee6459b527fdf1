"""Whole runs on a real device: resumed bit for bit, stopped, diverged, and on a full disk."""

import dataclasses
import json
import math
import os
import resource
import shlex
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime import (
    Bundle,
    Dataset,
    Device,
    DivergedError,
    EpochMetrics,
    Interrupted,
    Program,
    TrainingState,
    TrainResult,
    TrainSettings,
    bind,
    evaluate,
    load_checkpoint,
    open_bundle,
    read_metrics,
    resumed_settings,
    train,
)
from sonew_compiled.runtime.reporter import Reporter

SETTINGS = TrainSettings(epochs=4, learning_rate=0.05, schedule="paper", seed=7)  # of 10 steps each


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


class Recorder(Reporter):
    """Notes every step, and does something at one of them."""

    def __init__(self, at: int = 0, do: Callable[[], object] = lambda: None) -> None:
        self.losses: dict[int, float] = {}
        self.epochs: list[EpochMetrics] = []
        self._at, self._do = at, do

    def step(self, *, step: int, loss: float) -> None:
        self.losses[step] = loss
        if step == self._at:
            self._do()

    def epoch(self, metrics: EpochMetrics) -> None:
        self.epochs.append(metrics)


@pytest.fixture
def run(bundle: Bundle, tiny_data: Dataset, cpu: Device, tmp_path: Path) -> Callable[..., TrainResult]:
    """Trains the tiny bundle, in `tmp_path / "run"` unless told otherwise."""

    def train_tiny(settings: TrainSettings = SETTINGS, *, data: Dataset = tiny_data, **options: Any) -> TrainResult:
        options = {"output": tmp_path / "run", "device": cpu} | options
        return train(bundle, data, settings, options.pop("device"), **options)

    return train_tiny


def checkpoints(directory: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in directory.glob("step-*.safetensors"))


def test_a_run_trains_and_leaves_its_files(run: Callable[..., TrainResult], bundle: Bundle, tmp_path: Path) -> None:
    recorder = Recorder()
    result = run(reporter=recorder)
    assert (result.steps, result.target, result.device) == (40, "cpu", "local-sync")
    assert result.bundle == bundle.path
    assert result.checkpoint == tmp_path / "run" / "step-00000040.safetensors"
    assert result.train_loss < recorder.losses[1] / 2
    assert result.seconds > 0
    assert result.examples_per_second == pytest.approx(40 * 8 / result.seconds)
    assert checkpoints(tmp_path / "run") == [20, 30, 40]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "metrics.jsonl",
        *(f"step-000000{step}.safetensors" for step in (20, 30, 40)),
    }
    rows = read_metrics(tmp_path / "run")
    assert [(row["step"], row["epoch"]) for row in rows] == [(10, 1), (20, 2), (30, 3), (40, 4)]
    assert rows == [metrics.to_json() for metrics in recorder.epochs]
    for row in rows:
        losses = [recorder.losses[step] for step in range(row["step"] - 9, row["step"] + 1)]
        assert row["loss"] == pytest.approx(np.mean(losses))
    # The paper's schedule with the default warm-up of 2 epochs: 0, the peak, then down, without reaching 0.
    np.testing.assert_allclose([row["learning_rate"] for row in rows], [0, 0.05, 0.1 / 3, 0.05 / 3], rtol=1e-12)


def test_the_losses_are_those_of_the_last_checkpoint(
    run: Callable[..., TrainResult], bundle: Bundle, cpu: Device, tiny_data: Dataset
) -> None:
    result = run()
    program = Program.load(bundle, cpu)
    state = TrainingState.from_arrays(program, load_checkpoint(result.checkpoint, bundle.manifest).tensors)
    assert result.train_loss == evaluate(program, state.buffers, bind(tiny_data.train, bundle.manifest.batch))
    assert result.test_loss == evaluate(program, state.buffers, bind(tiny_data.test, bundle.manifest.batch))


@pytest.mark.parametrize("device", ["local-sync", "local-task"], indirect=True)
@pytest.mark.parametrize("stop", [1, 10, 17, 39])
def test_a_resumed_run_has_the_very_bits(
    run: Callable[..., TrainResult], device: Device, stop: int, tmp_path: Path
) -> None:
    whole, first, second = Recorder(), Recorder(), Recorder()
    expected = run(output=tmp_path / "whole", reporter=whole, device=device)
    stopped = run(dataclasses.replace(SETTINGS, max_steps=stop), reporter=first, device=device)
    assert stopped.steps == stop
    result = run(resumed_settings(tmp_path / "run"), resume=tmp_path / "run", reporter=second, device=device)
    assert result.checkpoint.read_bytes() == expected.checkpoint.read_bytes()
    assert (result.train_loss, result.test_loss) == (expected.train_loss, expected.test_loss)
    assert first.losses | second.losses == whole.losses
    assert len(first.losses) + len(second.losses) == 40
    timeless = [
        [{key: row[key] for key in ("step", "epoch", "loss", "learning_rate")} for row in read_metrics(tmp_path / name)]
        for name in ("whole", "run")
    ]
    assert timeless[0] == timeless[1]


def test_a_run_goes_on_in_another_directory(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    expected = run(output=tmp_path / "whole")
    stopped = run(dataclasses.replace(SETTINGS, max_steps=15))
    result = run(resume=stopped.checkpoint, output=tmp_path / "other")
    assert result.checkpoint.read_bytes() == expected.checkpoint.read_bytes()
    assert [row["step"] for row in read_metrics(tmp_path / "other")] == [10, 20, 30, 40]
    assert checkpoints(tmp_path / "run") == [10, 15]


def test_going_back_replaces_what_came_after(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    early = run().checkpoint.with_name("step-00000020.safetensors")
    seen = []
    recorder = Recorder(at=21, do=lambda: seen.append(checkpoints(tmp_path / "run")))
    again = dataclasses.replace(SETTINGS, learning_rate=0.01, max_steps=25)
    run(again, resume=early, reporter=recorder, overwrite=True)
    # The old checkpoints stay until there is a new one.
    assert seen == [[20, 30, 40]]
    assert checkpoints(tmp_path / "run") == [20, 25]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [10, 20]


def test_a_checkpoint_may_have_another_name(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    first = run()
    kept = tmp_path / "run" / "a-good-one.safetensors"
    (tmp_path / "run" / "step-00000030.safetensors").rename(kept)
    assert run(resume=kept, overwrite=True).checkpoint.read_bytes() == first.checkpoint.read_bytes()
    assert checkpoints(tmp_path / "run") == [20, 40]
    assert kept.exists()


def test_a_finished_run_can_be_resumed_for_its_losses_or_for_more(
    run: Callable[..., TrainResult], tmp_path: Path
) -> None:
    first = run()
    again = run(resume=tmp_path / "run")
    assert (again.train_loss, again.test_loss) == (first.train_loss, first.test_loss)
    assert (again.steps, again.examples_per_second) == (40, 0)
    assert again.checkpoint == first.checkpoint
    more = run(dataclasses.replace(SETTINGS, epochs=6), resume=tmp_path / "run")
    assert more.steps == 60
    assert more.train_loss < first.train_loss


def test_settings_come_back_from_a_checkpoint(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    settings = TrainSettings(epochs=2, learning_rate=1 / 3e7, schedule="cosine", warmup_epochs=0, seed=3)
    run(settings)
    assert resumed_settings(tmp_path / "run") == settings
    run(TrainSettings(epochs=60, learning_rate=0, max_steps=1), output=tmp_path / "other")
    assert resumed_settings(tmp_path / "other").warmup_steps == 100


def test_checkpoints_as_often_and_as_many_as_asked(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    run(dataclasses.replace(SETTINGS, epochs=7, checkpoint_every=3, keep=2))
    assert checkpoints(tmp_path / "run") == [60, 70]


def test_another_run_in_the_directory_is_not_touched(
    run: Callable[..., TrainResult], tmp_path: Path, refusal: Callable[..., str]
) -> None:
    other = run(output=tmp_path / "other")
    run(dataclasses.replace(SETTINGS, max_steps=5))
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    for resume in (None, other.checkpoint):
        message = refusal(UsageError, lambda resume=resume: run(resume=resume))
        assert "--overwrite" in message
        assert f"--resume {tmp_path / 'run'}" in message
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_another_run_is_replaced_when_asked(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    run()
    run(dataclasses.replace(SETTINGS, max_steps=15), overwrite=True)
    assert checkpoints(tmp_path / "run") == [10, 15]
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [10]


def test_a_run_stays_until_another_has_a_checkpoint(
    run: Callable[..., TrainResult], tmp_path: Path, refusal: Any
) -> None:
    run()
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    wild = dataclasses.replace(SETTINGS, learning_rate=1e30, schedule="constant")
    refusal(DivergedError, lambda: run(wild, overwrite=True))
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_what_a_resumed_run_must_share_is_checked(
    run: Callable[..., TrainResult], bundle: Bundle, tiny_data: Dataset, cpu: Device, tmp_path: Path, refusal: Any
) -> None:
    run()

    def said(settings: TrainSettings = SETTINGS, data: Dataset = tiny_data) -> str:
        message: str = refusal(UsageError, lambda: run(settings, data=data, resume=tmp_path / "run"))
        assert "step-00000040.safetensors" in message
        return message

    message = said(data=dataclasses.replace(tiny_data, fingerprint="fedcba9876543210"))
    assert "0123456789ab, this run has fedcba987654" in message
    assert "--data it had, tiny-data" in message
    assert "seed 7, this run has 8" in said(dataclasses.replace(SETTINGS, seed=8))
    assert "beyond the 20 steps of 2 epochs" in said(dataclasses.replace(SETTINGS, epochs=2))
    # A bundle with the same state and another precision.
    mixed = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, precision="bf16-mixed"))
    message = refusal(
        UsageError,
        lambda: train(mixed, tiny_data, SETTINGS, cpu, output=tmp_path / "run", resume=tmp_path / "run"),
    )
    assert "was trained with precision f32" in message
    assert "the bundle has precision bf16-mixed" in message
    # A bundle of the same model for another batch size.
    functions = {
        name: dataclasses.replace(
            function,
            inputs=tuple(
                dataclasses.replace(spec, shape=(4, 4)) if spec.name == "batch/image" else spec
                for spec in function.inputs
            ),
        )
        for name, function in bundle.manifest.functions.items()
    }
    small = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, functions=functions))
    message = refusal(
        UsageError,
        lambda: train(small, tiny_data, SETTINGS, cpu, output=tmp_path / "run", resume=tmp_path / "run"),
    )
    assert "batch size 8, this run has 4" in message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_go_on(
    run: Callable[..., TrainResult], bundle: Bundle, number: signal.Signals, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    expected = run(output=tmp_path / "whole")
    before = signal.getsignal(number)
    recorder = Recorder(at=13, do=lambda: os.kill(os.getpid(), number))
    message = refusal(Interrupted, lambda: run(reporter=recorder))
    assert signal.getsignal(number) is before
    assert Interrupted.exit_code == 130
    assert message.startswith("stopped after step 13 of 40, saved ")
    command = shlex.split(message.partition("go on with: ")[2])
    assert command[:3] == ["sonew", "run", str(bundle.path)]
    options = dict(zip(command[3::2], command[4::2], strict=True))
    # The output is the folder of the resumed run.
    assert options == {
        "--data": "tiny-data",
        "--resume": str(tmp_path / "run"),
        "--device": "local-sync",
    }
    result = run(resume=options["--resume"])
    assert result.checkpoint.read_bytes() == expected.checkpoint.read_bytes()


def test_the_caller_may_give_the_command(run: Callable[..., TrainResult], refusal: Callable[..., str]) -> None:
    recorder = Recorder(at=1, do=lambda: os.kill(os.getpid(), signal.SIGINT))
    message = refusal(Interrupted, lambda: run(reporter=recorder, resume_command="make more"))
    assert message.endswith("go on with: make more")


def test_a_signal_after_the_last_step_loses_nothing(
    run: Callable[..., TrainResult], tmp_path: Path, refusal: Callable[..., str]
) -> None:
    recorder = Recorder(at=40, do=lambda: os.kill(os.getpid(), signal.SIGINT))
    assert "stopped after step 40 of 40, saved" in refusal(Interrupted, lambda: run(reporter=recorder))
    assert run(resume=tmp_path / "run").steps == 40


def test_a_second_signal_ends_at_once(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    def twice() -> None:
        ours = signal.getsignal(signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        # Any thread may receive the signal, and two pending signals become one, so Python must handle the first before.
        while signal.getsignal(signal.SIGINT) is ours:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    # A shell starts background processes with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(reporter=Recorder(at=13, do=twice))
    finally:
        signal.signal(signal.SIGINT, before)
    assert checkpoints(tmp_path / "run") == [10]


def test_training_works_outside_the_main_thread(run: Callable[..., TrainResult]) -> None:
    results: list[TrainResult] = []
    thread = threading.Thread(target=lambda: results.append(run()))
    thread.start()
    thread.join()
    assert results[0].steps == 40


def test_a_loss_that_diverges_keeps_the_last_good_checkpoint(
    run: Callable[..., TrainResult], bundle: Bundle, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    recorder = Recorder()
    settings = TrainSettings(epochs=100, learning_rate=3, schedule="constant", warmup_epochs=0)
    message = refusal(DivergedError, lambda: run(settings, reporter=recorder))
    at = max(recorder.losses) + 1
    assert f"at step {at} of 1000" in message
    assert "lower --learning-rate, now 3" in message
    assert at > 10
    last = checkpoints(tmp_path / "run")[-1]
    assert f"step-{last:08d}.safetensors" in message
    for path in (tmp_path / "run").glob("step-*"):
        tensors = load_checkpoint(path, bundle.manifest).tensors
        assert all(np.isfinite(array).all() for array in tensors.values())


def test_a_state_that_diverges_under_a_finite_loss_is_not_saved(
    run: Callable[..., TrainResult], tmp_path: Path, refusal: Callable[..., str]
) -> None:
    settings, recorder = TrainSettings(epochs=1, learning_rate=3e38, warmup_steps=0, max_steps=1), Recorder()
    message = refusal(DivergedError, lambda: run(settings, reporter=recorder))
    assert math.isfinite(recorder.losses[1])
    assert "'params/" in message
    assert "by step 1 of 10" in message
    assert "there is no checkpoint yet" in message
    assert checkpoints(tmp_path / "run") == []


def test_a_full_disk_names_the_last_good_checkpoint(
    run: Callable[..., TrainResult], bundle: Bundle, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))

    def train_until_full() -> None:
        try:
            run(reporter=Recorder(at=15, do=fill_disk))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    message = refusal(SonewError, train_until_full)
    assert "step-00000020.safetensors cannot be written" in message
    assert f"the last good checkpoint is {tmp_path / 'run' / 'step-00000010.safetensors'}" in message
    assert load_checkpoint(tmp_path / "run", bundle.manifest).step == 10
    assert not list((tmp_path / "run").glob(".*"))


def test_data_that_do_not_fit_are_refused(
    run: Callable[..., TrainResult], tiny_data: Dataset, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    few = {"image": tiny_data.train["image"][:7]}
    assert "7 training examples" in refusal(UsageError, lambda: run(data=dataclasses.replace(tiny_data, train=few)))
    wide = {"image": np.zeros((20, 5), np.float32)}
    refusal(UsageError, lambda: run(data=dataclasses.replace(tiny_data, train=wide)))
    assert not (tmp_path / "run").exists()


def test_damaged_metrics_are_refused_and_a_cut_line_is_dropped(
    run: Callable[..., TrainResult], tmp_path: Path, refusal: Callable[..., str]
) -> None:
    run(dataclasses.replace(SETTINGS, max_steps=25))
    path = tmp_path / "run" / "metrics.jsonl"
    text = path.read_text()
    path.write_text(text + '{"step": 30, "ep')
    run(resume=tmp_path / "run")
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20, 30, 40]
    path.write_text("what is this\n" + text)
    assert "line 1" in refusal(SonewError, lambda: run(resume=tmp_path / "run"))
