"""The optimizer's update alone, compiled by the pipeline of the whole step and called on real state."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sonew_compiled import passes
from sonew_compiled.backward import Loss
from sonew_compiled.bench._roofline import load_executable
from sonew_compiled.bench._traffic import update_function_bytes
from sonew_compiled.contract import LEARNING_RATE, LOSS, STORED_ROLES, TRAIN_STEP, Role
from sonew_compiled.held import Held
from sonew_compiled.lowering.lower import adapt, function_specs, lower
from sonew_compiled.lowering.targets import pin_host, resolve_target
from sonew_compiled.optimizer import optimizer_factory, statistics_dtype, with_step_settings
from sonew_compiled.presets import OptimizerSettings
from sonew_compiled.runtime import Device, Program, TrainingState
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.manifest import TensorSpec
from sonew_compiled.step_settings import PLAIN, StepSettings
from sonew_compiled.trace import trace_update

_PARAMETER_SCALE = 0.05
_GRADIENT_SCALE = 1e-3

# Updates cycle through this many gradients, or through fewer if these take more than the bytes below. The statistics of
# a single gradient have rank one, which never happens in training, and nearly all of their pivots are bad.
_GRADIENTS = 8
_GRADIENT_BYTES = 1 << 30


class CompiledUpdate:
    """An update-only executable on a device, with the state that it updates.

    Attributes:
      bytes: the bytes that one call must move; see `update_bytes`.
    """

    def __init__(
        self,
        init: Callable[[jax.Array], Any],
        optimizer: OptimizerSettings,
        device: Device,
        *,
        loss: Loss | None = None,
        batch: Any = None,
        precision: str = "f32",
        target: str = "cpu",
        step: StepSettings = PLAIN,
    ) -> None:
        """Compiles and loads the update, with what `step` says of clipping, decay and frozen parameters.

        `init` is a model's; the other arguments are those of `compile_training`. An optimizer that looks into the model
        needs its loss and a batch.

        Under a policy that rounds every operation (`bf16-pure`) the gradients are rounded, as within the step. Under
        the other policies they are float32. A policy's loss scaling is no part of the update.
        """
        policy = passes.precision_policy(precision)
        resolved = pin_host(resolve_target(target))
        pure = any(each.startswith("retype") for each in policy.passes)
        what = f"the update of {optimizer.name}"
        shapes = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32")))
        shapes, _ = Held(step.freeze).split(shapes)

        def zeros(key: jax.Array) -> Any:
            """Stands in for the model's `init`, whose random numbers would take longer to compile than the update."""
            del key
            return jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), shapes)

        with statistics_dtype(policy.state_dtype):
            make = with_step_settings(optimizer_factory(optimizer, loss=loss, batch=batch), step, optimizer.name)
            module = passes.parse(trace_update(init=zeros, optimizer=make, batch=batch))
        pipeline = [each for each in passes.pipeline(policy) if each.name != "loss-scaling"]
        if pure:
            roles = (*STORED_ROLES, Role.GRADIENT)
            pipeline = [each.bind(roles=roles) if each.name == "lower-storage" else each for each in pipeline]
        passes.run_pipeline(module, pipeline)
        functions = function_specs(module)
        shared = passes.to_portable_artifact(module)
        executable, spec = lower(adapt(shared, resolved, what=what), resolved, shared=shared, what=what)
        with tempfile.TemporaryDirectory(prefix="sonew-") as scratch:
            self._program = load_executable(Path(scratch), executable, spec, functions, device)
        self._step = functions[TRAIN_STEP]
        self.bytes = update_function_bytes(optimizer, self._step)
        rng = np.random.default_rng(0)

        def random(spec: TensorSpec, scale: float) -> np.ndarray:
            dtype = as_dtype(spec.dtype)
            if np.issubdtype(dtype, np.integer):
                return np.zeros(spec.shape, dtype)
            return (scale * rng.standard_normal(spec.shape, np.float32)).astype(dtype)

        self._buffers = TrainingState.initial(self._program, seed=0).buffers | {
            spec.name: self._program.upload(spec, random(spec, _PARAMETER_SCALE))
            for spec in self._step.inputs
            if spec.role == Role.PARAMETER
        }
        self._rate = {LEARNING_RATE: device.upload(np.array(1e-4, np.float32))}
        gradients = [spec for spec in self._step.inputs if spec.role == Role.GRADIENT]
        several = [_several(random(spec, _GRADIENT_SCALE), _count(gradients)) for spec in gradients]
        uploaded = [
            [self._program.upload(spec, g) for g in each] for spec, each in zip(gradients, several, strict=True)
        ]
        names = [spec.name for spec in gradients]
        self._gradients = itertools.cycle([dict(zip(names, each, strict=True)) for each in zip(*uploaded, strict=True)])
        for _ in range(_GRADIENTS):
            self()

    def __call__(self) -> None:
        """Updates the state once."""
        self._buffers = self._program.call(TRAIN_STEP, {**self._buffers, **next(self._gradients), **self._rate})


def _count(gradients: Sequence[TensorSpec]) -> int:
    """The number of gradients to cycle through."""
    return int(np.clip(_GRADIENT_BYTES // max(sum(spec.nbytes for spec in gradients), 1), 2, _GRADIENTS))


def _several(gradient: np.ndarray, count: int) -> list[np.ndarray]:
    """Several gradients of one tensor, each a rotation of the first; every other one has the opposite sign."""
    moved = (np.roll(gradient.reshape(-1), 977 * index).reshape(gradient.shape) for index in range(count))
    return [(-each if index % 2 else each).astype(gradient.dtype) for index, each in enumerate(moved)]


class JaxUpdate:
    """The same update under `jax.jit` in float32, with its state donated."""

    def __init__(self, init: Callable[[jax.Array], Any], optimizer: OptimizerSettings) -> None:
        make = optimizer_factory(optimizer)
        params = jax.jit(init)(jax.random.key(0, impl="threefry2x32"))
        self._state = (params, jax.jit(make(0.0).init)(params))
        rng = np.random.default_rng(0)
        tree: Any
        leaves, tree = jax.tree.flatten(params)
        count = _count([TensorSpec(name="", shape=p.shape, dtype="float32", role=Role.GRADIENT) for p in leaves])
        several = [_several(_GRADIENT_SCALE * rng.standard_normal(p.shape, np.float32), count) for p in leaves]
        self._gradients = itertools.cycle(
            [tree.unflatten(map(jnp.asarray, each)) for each in zip(*several, strict=True)]
        )
        self._rate = jnp.asarray(1e-4, jnp.float32)

        @functools.partial(jax.jit, donate_argnums=(0,))
        def update(state: Any, grads: Any, learning_rate: Any) -> Any:
            updates, inner = make(learning_rate).update(grads, state[1], state[0])
            return optax.apply_updates(state[0], updates), inner

        self._update = update
        for _ in range(_GRADIENTS):
            self()

    def __call__(self) -> None:
        """Updates the state once and waits for it."""
        self._state = jax.block_until_ready(self._update(self._state, next(self._gradients), self._rate))


def random_batch(program: Program, *, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch of random numbers from 0 to 1, and of zeros in fields of integers."""
    rng = np.random.default_rng(seed)
    fields = {}
    for spec in program.manifest.batch:
        dtype = as_dtype(spec.dtype)
        floating = not np.issubdtype(dtype, np.integer)
        fields[spec.name] = (rng.random(spec.shape, np.float32) if floating else np.zeros(spec.shape)).astype(dtype)
    return fields


def load_step(program: Program, *, seed: int = 0) -> Callable[[], None]:
    """The bare step of a bundle: each call does one step on a batch on the device, and downloads nothing."""
    batch = program.upload_batch(random_batch(program, seed=seed))
    rate = program.device.upload(np.array(1e-6, np.float32))
    state = TrainingState.initial(program, seed=seed)
    buffers = state.buffers

    def step() -> None:
        nonlocal buffers
        results = program.call(TRAIN_STEP, {**buffers, **batch, LEARNING_RATE: rate})
        del results[LOSS]
        buffers = results

    return step
