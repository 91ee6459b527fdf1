"""The settings of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sonew_compiled.presets import Value
from sonew_compiled.step_settings import PLAIN, StepSettings
from sonew_compiled.train_settings import DEFAULT_SCHEDULE


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """The settings of a study; a study that is resumed must have the same.

    Attributes:
      optimizer: its name.
      precision: a policy.
      model: its name on the command line.
      batch_size: the examples in a step.
      epochs: the length of a training, to which the schedule is fitted; a trial may be stopped before.
      schedule: the schedule of the learning rate in every trial.
      data: the data set.
      seed: the seed of the initial weights, of the order of the data and of the sampler.
      sampler: `tpe` or `random`.
      learning_rate: the center of the search; None for the rate that ships.
      settings: settings of the optimizer, by name, in place of those that ship. The search goes around those that a
        step takes at run time; the others are fixed.
      enqueue: settings by name, `learning_rate` among them, of trials with which the search begins besides its own;
        what one of them leaves out ships.
      step: what a step of every trial does besides its optimizer.
    """

    optimizer: str
    precision: str = "f32"
    model: str = "autoencoder"
    batch_size: int = 1000
    epochs: int = 20
    schedule: str = DEFAULT_SCHEDULE
    data: str = "mnist-10k"
    seed: int = 0
    sampler: str = "tpe"
    learning_rate: float | None = None
    settings: Mapping[str, Value] = field(default_factory=dict)
    enqueue: tuple[Mapping[str, Value], ...] = ()
    step: StepSettings = PLAIN

    def to_json(self) -> dict[str, Any]:
        """One flat object, without the trials to begin with."""
        described = asdict(self)
        del described["enqueue"], described["step"]
        given = described.pop("settings")
        return {**described, **given, **self.step.to_json()}
