"""The training state on a device, by name."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from sonew_compiled.contract import (
    BUCKET,
    GRADIENTS,
    INIT,
    LEARNING_RATE,
    LOSS,
    PARAMETERS_FILE,
    SEED,
    TRAIN_STEP,
    UPDATE,
    UPDATE_COMMON,
    Role,
)
from sonew_compiled.errors import SonewError, UsageError, counted
from sonew_compiled.runtime.checkpoint import first_difference
from sonew_compiled.runtime.data import bind
from sonew_compiled.runtime.device import Buffer
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.limits import check_setting, check_start, check_trainable
from sonew_compiled.runtime.manifest import TensorSpec
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.weights import load_weights

MAX_SEED = 2**31 - 1


class TrainingState:
    """Parameters and optimizer state, resident on the device between steps.

    Attributes:
      buffers: the tensors of `Manifest.state` by name; after `keep` some of them.
    """

    def __init__(self, program: Program, buffers: dict[str, Buffer]) -> None:
        assert buffers.keys() == {spec.name for spec in program.manifest.state}
        self.program = program
        self.buffers = buffers
        self._settings: dict[str, Buffer] = {}
        self._last_rate: tuple[float, Buffer] = (math.nan, None)
        manifest = program.manifest
        self.use({name: manifest.optimizer[name] for name in manifest.runtime_settings})

    def __repr__(self) -> str:
        return f"TrainingState({len(self.buffers)} tensors of {self.program!r})"

    @classmethod
    def initial(
        cls,
        program: Program,
        *,
        seed: int,
        parameters: Mapping[str, np.ndarray] | None = None,
        learning_rate: float | None = None,
    ) -> TrainingState:
        """The state at step 0.

        Args:
          program: the loaded bundle.
          seed: the seed of `init`, from 0 to 2³¹ - 1.
          parameters: weights in place of those of `init`, as `load_weights` gives them, with all of the model's state
            or none of it. The default is the bundle's `params.safetensors`, if it has one.
          learning_rate: the schedule's peak, from which an optimizer with the rate in its state starts; by default the
            bundle's.

        Raises:
          UsageError: the seed is out of range, or the first state of the optimizer is computed from the parameters, by
            code that only `init` has.
          SonewError: the parameters are not the model's.
        """
        if not 0 <= seed <= MAX_SEED:
            raise UsageError(f"seed {seed} is not between 0 and {MAX_SEED}: choose another --seed")
        check_trainable(program.manifest, program.bundle.path)
        upload = program.device.upload
        fed = {SEED: upload(np.array(seed, np.int32))}
        if any(spec.role == Role.LEARNING_RATE for spec in program.manifest.functions[INIT].inputs):
            rate = program.manifest.defaults["learning_rate"] if learning_rate is None else learning_rate
            fed[LEARNING_RATE] = upload(np.array(rate, np.float32))
        made = program.call(INIT, fed)
        # The compiler gives equal results, such as zeros of one shape, the same buffer, which a step would update
        # twice.
        buffers = {
            spec.name: program.upload(spec, program.download(spec, made[spec.name])) for spec in program.manifest.state
        }
        if parameters is None and PARAMETERS_FILE in program.manifest.files:
            parameters = load_weights(program.bundle.file(PARAMETERS_FILE), program.manifest)
        if parameters is not None:
            buffers |= _given(program, parameters)
        return cls(program, buffers)

    @classmethod
    def from_arrays(cls, program: Program, arrays: Mapping[str, np.ndarray]) -> TrainingState:
        """The state from arrays on the host, such as those of a checkpoint.

        Raises:
          SonewError: an array is missing, superfluous, or has another shape or dtype.
        """
        _check(arrays, program.manifest.state, what="the state")
        return cls(program, {spec.name: program.upload(spec, arrays[spec.name]) for spec in program.manifest.state})

    def use(self, settings: Mapping[str, float]) -> None:
        """Sets runtime settings of the optimizer for later steps; until then the manifest's are used.

        Raises:
          UsageError: the bundle has no such setting, or a decay is too slow for the dtype of the stored state.
        """
        known = self.program.manifest.runtime_settings
        if unknown := [name for name in settings if name not in known]:
            raise UsageError(
                f"the bundle takes no {unknown[0]} at run time; give some of {', '.join(known) or 'no settings'}, or "
                "compile it with runtime_settings"
            )
        for name, value in settings.items():
            check_setting(self.program.manifest, name, value)
        upload = self.program.device.upload
        self._settings |= {name: upload(np.array(value, np.float32)) for name, value in settings.items()}

    def step(self, batch: Mapping[str, Buffer] | Mapping[str, np.ndarray], learning_rate: Buffer | float) -> float:
        """One training step in place.

        Args:
          batch: arrays by field name, exactly one batch, which are converted as `bind` does it. Or what
            `Program.upload_batch` gives, which is faster where batches are made while a step runs.
          learning_rate: zero or a positive number, or a float32 scalar on the device.

        Returns:
          The loss of the batch before the update.

        Raises:
          UsageError: the batch has another number of examples or does not fit, or the rate is no such number.
          SonewError: the device failed.
        """
        return self._advance(TRAIN_STEP, self._placed(batch), learning_rate)

    def gradients(self, batch: Mapping[str, Buffer], learning_rate: Buffer | float) -> Buffer:
        """The bucket of a micro-batch: its loss, and the signals for the update.

        Args:
          batch: from `Program.upload_batch`, for the function `gradients`.
          learning_rate: as for `step`.
        """
        return self.call(GRADIENTS, batch, learning_rate)[BUCKET]

    def update(self, bucket: Buffer, learning_rate: Buffer | float, parts: Collection[str] | None = None) -> float:
        """Does the rest of a step in place, and returns the batch's loss before it.

        An update that was cut into parts is always done in parts. So the bits do not depend on who does which: in one
        function the compiler might contract other products and sums.

        Args:
          bucket: the sum of the buckets of the batch.
          learning_rate: as for `step`.
          parts: the parts to do, of `Manifest.update_parts`; by default all.
        """
        manifest = self.program.manifest
        if not manifest.update_parts:
            return self._advance(UPDATE, {BUCKET: bucket}, learning_rate)
        # The parts read the common state as it was, so its new tensors take their places behind them.
        common = self.call(UPDATE_COMMON, {BUCKET: bucket}, learning_rate)
        for part in manifest.update_parts if parts is None else parts:
            self.buffers |= self.call(part, {**common, **self.buffers, BUCKET: bucket}, learning_rate)
        self.buffers |= {name: buffer for name, buffer in common.items() if name in self.buffers}
        return float(self.program.device.download(common[LOSS], "float32", ()))

    def _placed(self, batch: Mapping[str, Buffer] | Mapping[str, np.ndarray]) -> Mapping[str, Buffer]:
        """The batch on the device."""
        # Arrays of NumPy and JAX have one, and lists a length; a buffer has neither.
        if not any(hasattr(each, "__array__") or hasattr(each, "__len__") for each in batch.values()):
            return batch
        arrays = {name: np.asarray(each) for name, each in batch.items()}
        bound = bind(arrays, self.program.manifest.batch, self.program.manifest.classes)
        if bound.examples != bound.batch_size:
            raise UsageError(
                f"the batch has {counted(bound.examples, 'example')} where the bundle takes {bound.batch_size}: give "
                "as many, or compile with another --batch-size"
            )
        ((fields, _),) = bound.evaluation_batches()
        return self.program.upload_batch(fields)

    def _rate(self, learning_rate: Buffer | float) -> Buffer:
        """The rate on the device, copied there only when it changes."""
        if not hasattr(learning_rate, "__float__"):  # a buffer
            return learning_rate
        value = float(learning_rate)
        if value != self._last_rate[0]:
            if not 0 <= value <= float(np.finfo(np.float32).max):
                raise UsageError(f"the learning rate is {value}: give zero or a positive number, such as 1e-2")
            self._last_rate = (value, self.program.device.upload(np.array(value, np.float32)))
        return self._last_rate[1]

    def _advance(self, function: str, given: Mapping[str, Buffer], learning_rate: Buffer | float) -> float:
        results = self.call(function, given, learning_rate)
        loss = results.pop(LOSS)
        # Most results alias the donated buffers. Those that the compiler could not alias are new, so all are taken.
        self.buffers = results
        return float(self.program.device.download(loss, "float32", ()))

    def call(self, function: str, given: Mapping[str, Buffer], learning_rate: Buffer | float) -> dict[str, Buffer]:
        """Calls a function of the bundle with the state and other inputs; the caller takes its results as the state."""
        fed = {**given, **self._settings, LEARNING_RATE: self._rate(learning_rate)}
        return self.program.call(function, {**self.buffers, **fed})

    def keep(self, names: Collection[str]) -> None:
        """Drops the tensors with other names, which another worker keeps."""
        self.buffers = {name: buffer for name, buffer in self.buffers.items() if name in names}

    def download(self) -> dict[str, np.ndarray]:
        """A copy of every tensor on the host, by name, in the manifest's order."""
        return {
            spec.name: self.program.download(spec, self.buffers[spec.name])
            for spec in self.program.manifest.state
            if spec.name in self.buffers
        }

    def parameters(self) -> dict[str, np.ndarray]:
        """A copy of the parameters on the host, by name; of a run with averages these are the raw ones."""
        return {
            spec.name: self.program.download(spec, self.buffers[spec.name]) for spec in self.program.manifest.parameters
        }


def _given(program: Program, weights: Mapping[str, np.ndarray]) -> dict[str, Buffer]:
    """The tensors of the first state that given weights replace, with the optimizer's copies of parameters."""
    state = program.manifest.state
    has_state = any(spec.role == Role.MODEL_STATE and spec.name in weights for spec in state)
    replaced = (Role.PARAMETER, Role.MODEL_STATE) if has_state else (Role.PARAMETER,)
    _check(weights, tuple(spec for spec in state if spec.role in replaced), what="the parameters")
    check_start(program.manifest, given="parameters")
    arrays = dict(weights)
    for name, source in program.manifest.starts_from.items():
        spec = next(spec for spec in state if spec.name == name)
        arrays[name] = weights[source].astype(as_dtype(spec.dtype))
    return {spec.name: program.upload(spec, arrays[spec.name]) for spec in state if spec.name in arrays}


def _check(arrays: Mapping[str, np.ndarray], specs: tuple[TensorSpec, ...], *, what: str) -> None:
    difference = first_difference(arrays, specs)
    if difference:
        raise SonewError(f"{what} given are not those of this bundle: {difference}; use those it was trained with")
