"""Training with many settings on one compiled step, by the runtime's protocol, for `sonew tune`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonew_compiled.compile import compile_training
from sonew_compiled.models import load_model, user_code
from sonew_compiled.presets import OptimizerSettings, runtime_settings_of
from sonew_compiled.runtime import (
    Bundle,
    Dataset,
    Program,
    TrainingState,
    bind,
    evaluate,
    learning_rates,
    open_bundle,
    open_device,
)
from sonew_compiled.step_settings import StepSettings


@dataclass(frozen=True, kw_only=True)
class TrialEpoch:
    """The end of an epoch.

    Attributes:
      epoch: the number of the epoch, from 1.
      loss: the mean over the epoch's batches, in the model's unit; not finite if training diverged.
      state: the state after the epoch, for `Trainer.losses`.
    """

    epoch: int
    loss: float
    state: TrainingState


def compile_step(
    optimizer: OptimizerSettings, output: Path, *, model: str, precision: str, batch_size: int, step: StepSettings
) -> Bundle:
    """A model's step compiled for the processor into `output`, with the rate and all runtime settings as inputs.

    The arguments are those of `sonew compile`.

    Raises:
      UsageError, SonewError: see `compile_training`.
    """
    loaded = load_model(model)
    with user_code(model):
        compile_training(
            optimizer=optimizer,
            batch=loaded.batch(batch_size),
            output=output,
            model=model,
            precision=precision,
            step=step,
            runtime_settings=runtime_settings_of(optimizer.name),
            **loaded.functions(predict=None, metrics=None),
        )
    return open_bundle(output)


class Trainer:
    """A compiled step on a device, which trains one trial at a time."""

    def __init__(self, bundle: Bundle, dataset: Dataset, *, device: str) -> None:
        """Loads the bundle, and binds the data to it.

        Raises:
          UsageError, SonewError: see `Program.load` and `bind`.
        """
        self._program = Program.load(bundle, open_device(device))
        manifest = bundle.manifest
        self._train, self._test = (
            bind(split, manifest.batch, manifest.classes) for split in (dataset.train, dataset.test)
        )

    def epochs(
        self,
        *,
        seed: int,
        epochs: int,
        learning_rate: float,
        schedule: str,
        settings: Mapping[str, float],
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[TrialEpoch]:
        """Trains from the start, and yields the end of each epoch. It ends early if the loss is not finite.

        Args:
          seed: the seed of the initial weights and the order of the data.
          epochs: the length of the whole training, to which the schedule is fitted.
          learning_rate: the peak of the schedule.
          schedule: one of `SCHEDULES`.
          settings: values for runtime settings; the others keep the optimizer's own.
          stopped: is asked before each step whether to end at once, without the end of the epoch.
        """
        steps = self._train.steps_per_epoch
        rate = learning_rates(schedule, peak=learning_rate, epochs=epochs, steps_per_epoch=steps)
        state = TrainingState.initial(self._program, seed=seed, learning_rate=learning_rate)
        state.use(settings)
        upload = self._program.device.upload
        with contextlib.closing(self._train.training_batches(seed, 0, self._program.upload_batch)) as batches:
            for epoch in range(epochs):
                losses: list[float] = []
                for step in range(epoch * steps, (epoch + 1) * steps):
                    if stopped():
                        return
                    losses.append(state.step(next(batches), upload(np.array(rate(step), np.float32))))
                    if not math.isfinite(losses[-1]):
                        break
                mean = sum(losses) / len(losses)
                yield TrialEpoch(epoch=epoch + 1, loss=mean, state=state)
                if not math.isfinite(mean):
                    return

    def losses(self, state: TrainingState) -> tuple[float, float]:
        """The mean losses over the whole training split and the test split."""
        train, test = (evaluate(self._program, state.buffers, data) for data in (self._train, self._test))
        return train, test
