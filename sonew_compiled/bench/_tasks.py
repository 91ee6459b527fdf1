"""What is done in processes of their own; each function takes and gives what JSON has. See `_apart`."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sonew_compiled.bench._apart import one_line
from sonew_compiled.bench._machine import peak_resident_bytes
from sonew_compiled.bench._plan import Run
from sonew_compiled.bench._traffic import step_bytes
from sonew_compiled.bench.rows import to_losses
from sonew_compiled.contract import TRAIN_STEP
from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import (
    EpochMetrics,
    Program,
    Reporter,
    TrainingState,
    TrainSettings,
    bind,
    load_dataset,
    open_bundle,
    open_device,
    read_metrics,
    train,
)


def compile_bundle(run: dict[str, Any], bundle: str) -> dict[str, Any]:
    """Compiles the bundle of a run, and says what a row needs to know of it."""
    import jax

    from sonew_compiled.bench._flops import step_flops
    from sonew_compiled.compile import compile_training
    from sonew_compiled.lowering.vmfb import read_code
    from sonew_compiled.models import load_model, user_code

    asked = Run.from_settings(run)
    model = load_model(asked.model)
    jax.devices()  # what JAX takes to start is none of the compilation
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
            check=False,  # which is none of the compilation
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
    """The times of a run's steps, as a user waits for them: the batch made and uploaded, the step, the loss read."""

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
        seed=asked.seed,
        keep=1,
        checkpoint_every=asked.epochs,
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
    """The optimizer's update alone, compiled like the step, in turns with the bare step."""
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
    )
    measured = measure_pairs(update, load_step(Program.load(open_bundle(bundle), device)), pairs)
    return {
        "update_seconds": statistics.median(measured.a),
        "update_bytes": update.bytes,
        "bare_step_seconds": statistics.median(measured.b),
        "optimizer_share": measured.ratio,
    }


def measure_limits(target: str, device: str) -> dict[str, Any]:
    """The roofline of a device."""
    from sonew_compiled.bench._roofline import measure_roofline

    return measure_roofline(open_device(device), target).to_json()


def versus_jax(run: dict[str, Any], bundle: str, pairs: int) -> dict[str, Any]:
    """The bare step in turns with that of `jax.jit`."""
    from sonew_compiled.bench._versus import time_jax

    return time_jax(Run.from_settings(run), bundle, pairs)


def versus_torch(run: dict[str, Any], bundle: str, pairs: int, compiled: bool) -> dict[str, Any]:
    """The bare step in turns with PyTorch's, eager or compiled."""
    from sonew_compiled.bench._torch import time_torch

    return time_torch(Run.from_settings(run), bundle, pairs, compiled=compiled)


def speed_compile(settings: dict[str, Any], folder: str, name: str) -> dict[str, Any]:
    """A bundle of the speed table."""
    from sonew_compiled.bench import _speed

    return _speed.compile_bundle(_speed.SpeedSettings(**settings), Path(folder), name)


def speed_steps(settings: dict[str, Any], folder: str, precision: str) -> dict[str, Any]:
    """The whole step against XLA's."""
    from sonew_compiled.bench import _speed

    return _speed.measure_step(_speed.SpeedSettings(**settings), Path(folder), precision)


def speed_optimizers(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """The whole step against Adam's."""
    from sonew_compiled.bench import _speed

    return _speed.measure_optimizers(_speed.SpeedSettings(**settings), Path(folder))


def speed_updates(settings: dict[str, Any]) -> dict[str, Any]:
    """The update alone against XLA's, the memory and itself."""
    from sonew_compiled.bench import _speed

    return _speed.measure_updates(_speed.SpeedSettings(**settings))


def speed_growth(settings: dict[str, Any]) -> dict[str, Any]:
    """The update's time per parameter, large against small."""
    from sonew_compiled.bench import _speed

    return _speed.measure_growth(_speed.SpeedSettings(**settings))


def speed_loop(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """The runtime's loop against the bare step."""
    from sonew_compiled.bench import _speed

    return _speed.measure_loop(_speed.SpeedSettings(**settings), Path(folder))


def _step_times(seconds: list[float]) -> dict[str, Any]:
    """The first step apart, since it warms up what the others find warm."""
    steady = np.asarray(seconds[1:] or seconds)
    return {
        "first_step_seconds": seconds[0],
        "step_p50_seconds": float(np.percentile(steady, 50)),
        "step_p95_seconds": float(np.percentile(steady, 95)),
    }


_TASKS: Mapping[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (
        compile_bundle,
        measure_limits,
        speed_compile,
        speed_growth,
        speed_loop,
        speed_optimizers,
        speed_steps,
        speed_updates,
        time_bundle,
        time_update,
        train_bundle,
        versus_jax,
        versus_torch,
    )
}


def _main(asked: Path, answered: Path) -> None:
    request = json.loads(asked.read_text(encoding="utf-8"))
    try:
        result = _TASKS[request["task"]](**request["arguments"])
    except SonewError as error:
        result = {"error": one_line(error)}
    except ModuleNotFoundError as error:
        result = {"error": f"this needs {error.name}, which is not installed"}
    answered.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
