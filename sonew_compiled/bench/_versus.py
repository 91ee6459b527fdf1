"""The same step under `jax.jit`, in turns with the compiled one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sonew_compiled.bench._jax import JaxTraining
from sonew_compiled.bench._machine import peak_resident_bytes
from sonew_compiled.bench._pairs import Pairs, measure_pairs
from sonew_compiled.bench._update import load_step
from sonew_compiled.bench.plan import Run
from sonew_compiled.errors import SonewError
from sonew_compiled.lowering.targets import resolve_target
from sonew_compiled.models import Model, load_model
from sonew_compiled.presets import OptimizerSettings
from sonew_compiled.runtime import Program, open_bundle, open_device
from sonew_compiled.step_settings import PLAIN, StepSettings


class JaxStep:
    """A step of `jax.jit` on a batch on the device, with the state donated.

    Attributes:
      compile_seconds: the time of the first call, which compiles.
    """

    def __init__(
        self,
        model: Model,
        optimizer: OptimizerSettings,
        batch_size: int,
        precision: str,
        step: StepSettings = PLAIN,
    ) -> None:
        training = JaxTraining(model, optimizer, precision=precision, settings=step)
        rng = np.random.default_rng(0)
        shapes = model.batch(batch_size)
        batch = jax.tree.map(
            lambda s: jax.device_put(
                rng.random(s.shape, np.float32).astype(s.dtype)
                if np.issubdtype(s.dtype, np.floating)
                else np.zeros(s.shape, s.dtype)
            ),
            shapes,
        )
        state = training.init(0)
        started = time.perf_counter()
        self._state = jax.block_until_ready(training.step(state, batch, 1e-6))[0]
        self.compile_seconds = time.perf_counter() - started
        self._call: Callable[[Any], Any] = lambda state: training.step(state, batch, 1e-6)

    def __call__(self) -> None:
        """Does one step and waits for it."""
        self._state = jax.block_until_ready(self._call(self._state))[0]


def time_jax(run: dict[str, Any], bundle: str, pairs: int) -> dict[str, Any]:
    """The task that makes the row of `jax.jit`, with the ratio of the compiled step's time to JAX's.

    Raises:
      SonewError: JAX has no such device here.
    """
    asked = Run.from_settings(run)
    device = open_device(asked.device)
    if jax.default_backend() != resolve_target(asked.target).jax_platform:
        raise SonewError(f"JAX runs on {jax.default_backend()} here, not on {device.name}: no row to compare with")
    step = load_step(Program.load(open_bundle(bundle), device))
    other = JaxStep(load_model(asked.model), asked.optimizer, asked.batch_size, asked.precision, asked.step)
    measured = measure_pairs(step, other, pairs)
    return {"compile_seconds": other.compile_seconds, **compared(measured)}


def compared(measured: Pairs) -> dict[str, Any]:
    """The fields of a row that compare the compiled step, A, with another, B."""
    return {
        "step_p50_seconds": statistics.median(measured.b),
        "step_p95_seconds": float(np.percentile(measured.b, 95)),
        "compiled_step_seconds": statistics.median(measured.a),
        "ratio": measured.ratio,
        "ratio_per_pair": measured.each,
        "peak_resident_bytes": peak_resident_bytes(),
    }
