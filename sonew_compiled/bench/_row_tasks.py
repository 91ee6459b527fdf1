"""The tasks that make up the row of a compiled step; `_apart` says what a task is."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sonew_compiled.bench._machine import peak_resident_bytes
from sonew_compiled.bench._traffic import step_bytes
from sonew_compiled.bench.plan import Run
from sonew_compiled.bench.rows import to_losses
from sonew_compiled.contract import TRAIN_STEP
from sonew_compiled.runtime import (
    EpochMetrics,
    Program,
    TrainingState,
    TrainSettings,
    bind,
    load_dataset,
    open_bundle,
    open_device,
    read_metrics,
    train,
)
from sonew_compiled.runtime.reporter import Reporter

# A run's steps are cut into this many stretches, whose medians show how steady the machine was.
_STRETCHES = 10


def compile_bundle(run: dict[str, Any], bundle: str) -> dict[str, Any]:
    """Compiles the bundle of a run, and returns its fields of the row."""
    from sonew_compiled.bench._flops import step_flops
    from sonew_compiled.bench._plain import check_plain
    from sonew_compiled.compile import compile_training
    from sonew_compiled.jax_settings import start_platforms
    from sonew_compiled.lowering.vmfb import read_code
    from sonew_compiled.models import load_model, user_code

    asked = Run.from_settings(run)
    model = load_model(asked.model)
    check_plain(model)
    start_platforms()  # JAX's start is no part of the compilation
    started = time.perf_counter()
    with user_code(asked.model):
        manifest = compile_training(
            model.loss,
            model.init,
            asked.optimizer,
            model.batch(asked.batch_size),
            output=bundle,
            targets=(asked.target,),
            model=asked.model,
            precision=asked.precision,
            step=asked.step,
            check=False,  # the check is no part of the compilation
        )
    seconds = time.perf_counter() - started
    (target,) = manifest.targets
    executable = Path(bundle, target.file).read_bytes()
    return {
        "compile_seconds": seconds,
        "artifact_bytes": len(executable),
        "code_bytes": sum(len(code.content) for code in read_code(executable)),
        "kernels": len(target.kernels) or None,
        "registers": max((kernel.registers for kernel in target.kernels), default=None),
        "spilled_bytes": max((kernel.spilled_bytes for kernel in target.kernels), default=None),
        "parameters": manifest.parameter_count,
        "state_bytes_per_parameter": manifest.state_bytes / max(manifest.parameter_count, 1),
        "step_flops": step_flops(model, asked),
        "step_bytes": step_bytes(manifest.functions[TRAIN_STEP]),
    }


class _StepTimes(Reporter):
    """The times of a run's steps as a user waits for them: batch made and uploaded, step done, loss read."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def begin(self, *, step: int, steps: int, epochs: int, steps_per_epoch: int, batch_size: int) -> None:
        self._last = time.perf_counter()

    def step(self, *, step: int, loss: float) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now

    def epoch(self, metrics: EpochMetrics) -> None:
        self._last = time.perf_counter()


def train_bundle(run: dict[str, Any], data_dir: str | None, bundle: str, target_losses: list[float]) -> dict[str, Any]:
    """Trains to the end by the runtime's own loop."""
    asked = Run.from_settings(run, data_dir)
    assert asked.epochs is not None
    opened = open_bundle(bundle)
    dataset = load_dataset(asked.data, data_dir=None if data_dir is None else Path(data_dir))
    settings = TrainSettings(
        epochs=asked.epochs,
        learning_rate=asked.optimizer.learning_rate,
        schedule=asked.schedule,
        seed=asked.seed,
        keep=1,
        checkpoint_every=asked.epochs,
        evaluate_every=0,
    )
    times = _StepTimes()
    with tempfile.TemporaryDirectory(prefix="sonew-") as scratch:
        result = train(opened, dataset, settings, open_device(asked.device), output=scratch, reporter=times)
        curve = [{key: row[key] for key in ("epoch", "step", "seconds", "loss")} for row in read_metrics(Path(scratch))]
    return {
        **_step_times(times.seconds),
        "steps": result.steps,
        "seconds": result.seconds,
        "train_loss": result.train_loss,
        "test_loss": result.test_loss,
        "curve": curve,
        "to_loss": to_losses(curve, target_losses),
        "peak_resident_bytes": peak_resident_bytes(),
    }


def time_bundle(run: dict[str, Any], data_dir: str | None, bundle: str) -> dict[str, Any]:
    """Times a few steps, each with its batch uploaded and its loss read."""
    asked = Run.from_settings(run, data_dir)
    assert asked.steps is not None
    opened = open_bundle(bundle)
    dataset = load_dataset(asked.data, data_dir=None if data_dir is None else Path(data_dir))
    data = bind(dataset.train, opened.manifest.batch, opened.manifest.classes)
    program = Program.load(opened, open_device(asked.device))
    state = TrainingState.initial(program, seed=asked.seed, learning_rate=asked.optimizer.learning_rate)
    rate = program.device.upload(np.array(asked.optimizer.learning_rate, np.float32))
    seconds = []
    for index in range(asked.steps + 1):
        started = time.perf_counter()
        state.step(program.upload_batch(data.training_batch(asked.seed, index)), rate)
        seconds.append(time.perf_counter() - started)
    return {**_step_times(seconds), "steps": len(seconds), "peak_resident_bytes": peak_resident_bytes()}


def time_update(run: dict[str, Any], bundle: str, pairs: int) -> dict[str, Any]:
    """Times the optimizer's update alone, compiled like the step, in turns with the bare step."""
    from sonew_compiled.bench._pairs import measure_pairs
    from sonew_compiled.bench._update import CompiledUpdate, load_step
    from sonew_compiled.models import load_model

    asked = Run.from_settings(run)
    device = open_device(asked.device)
    model = load_model(asked.model)
    update = CompiledUpdate(
        model.init,
        asked.optimizer,
        device,
        loss=model.loss,
        batch=model.batch(asked.batch_size),
        precision=asked.precision,
        target=asked.target,
        step=asked.step,
    )
    measured = measure_pairs(update, load_step(Program.load(open_bundle(bundle), device)), pairs)
    return {
        "update_seconds": statistics.median(measured.a),
        "update_bytes": update.bytes,
        "bare_step_seconds": statistics.median(measured.b),
        "optimizer_share": measured.ratio,
    }


def _step_times(seconds: list[float]) -> dict[str, Any]:
    """The fields of the steps' times; the first step is apart, since it warms up caches and threads."""
    steady = np.asarray(seconds[1:] or seconds)
    return {
        "first_step_seconds": seconds[0],
        "step_p50_seconds": float(np.percentile(steady, 50)),
        "step_p95_seconds": float(np.percentile(steady, 95)),
        "step_stretches_seconds": [
            float(np.median(each)) for each in np.array_split(steady, min(_STRETCHES, len(steady)))
        ],
    }
