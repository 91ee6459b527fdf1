"""Training with many settings on one compiled step, by the runtime's protocol, for `sonew tune`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonew_compiled.compile import compile_training
from sonew_compiled.models import load_model, user_code
from sonew_compiled.presets import OptimizerSettings, runtime_settings_of
from sonew_compiled.runtime import (
    Program,
    TrainingState,
    bind,
    evaluate,
    learning_rates,
    load_dataset,
    open_bundle,
    open_device,
)

TRIAL_BUNDLE = "trial.bundle"


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


class Trainer:
    """A model's step compiled once for the processor; the learning rate and all runtime settings are inputs.

    Attributes:
      names: the names of the optimizer's settings that are inputs beside the learning rate.
    """

    def __init__(
        self,
        optimizer: OptimizerSettings,
        *,
        model: str,
        precision: str,
        batch_size: int,
        data: str,
        data_dir: Path | None,
        folder: Path,
    ) -> None:
        """Compiles a bundle into `folder`, and loads the bundle and the data.

        The other arguments are those of `sonew compile` and `sonew run`.

        Raises:
          UsageError, SonewError: see `compile_training` and `load_dataset`.
        """
        dataset = load_dataset(data, data_dir=data_dir)
        loaded = load_model(model)
        self.names = runtime_settings_of(optimizer.name)
        with user_code(model):
            compile_training(
                optimizer=optimizer,
                batch=loaded.batch(batch_size),
                output=folder / TRIAL_BUNDLE,
                model=model,
                precision=precision,
                runtime_settings=self.names,
                **loaded.functions(predict=None, metrics=None),
            )
        bundle = open_bundle(folder / TRIAL_BUNDLE)
        self._program = Program.load(bundle, open_device("local-task"))
        manifest = bundle.manifest
        self.limits = manifest.setting_limits
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
    ) -> Iterator[TrialEpoch]:
        """Trains from the start, and yields the end of each epoch. It stops early if the loss is not finite.

        Args:
          seed: the seed of the initial weights and the order of the data.
          epochs: the length of the whole training, to which the schedule is fitted.
          learning_rate: the peak of the schedule.
          schedule: one of `SCHEDULES`.
          settings: values for settings in `names`; the others keep the optimizer's own.
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
