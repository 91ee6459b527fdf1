"""The suites of `sonew bench --preset NAME`. The file imports nothing heavy, so that the command line can list them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sonew_compiled.presets import PRECISIONS
from sonew_compiled.train_settings import DEFAULT_SCHEDULE

PAPER = "paper"
"""The schedule of the paper's runs, which rows have unless they say another."""

HERE = "here"
"""Stands for all targets: those that this machine runs, and the static figures of those that it can only compile."""

# In the order of the paper's benchmark; it has no K-FAC.
_SYSTEMS = (
    *("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "diag-sonew", "shampoo", "rfdson"),
    *("tridiag-sonew", "band-sonew", "kfac"),
)
# The paper has rfdSON with sketches of one row and of four.
_FORMS: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({"rfdson": ({"rank": 1}, {"rank": 4})})


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Optimizers x precisions x targets x seeds, and the length of each run.

    Attributes:
      name: its name for `--preset`.
      summary: its purpose.
      model: the model's name.
      optimizers: their names in `presets`, with the settings that ship.
      forms: further settings of an optimizer that has several runs, those of each.
      precisions: the names of policies.
      targets: the names of targets, or `(HERE,)`.
      seeds: the seeds, with a run each.
      epochs: the length of training; None for runs that are only timed.
      steps: the steps of runs that are only timed; None for training.
      schedule: the schedule of the learning rate of runs that train.
      data: the data set.
      target_losses: training losses in the model's unit, whose first steps and seconds are recorded.
      update: whether the optimizer's update alone is compiled and timed too, for its share of the step.
      caveat: a warning for the report about what its rows do not show; may be empty.
    """

    name: str
    summary: str
    model: str = "autoencoder"
    optimizers: tuple[str, ...]
    forms: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=lambda: MappingProxyType({}))
    precisions: tuple[str, ...] = ("f32",)
    targets: tuple[str, ...] = ("cpu",)
    seeds: tuple[int, ...] = (0,)
    epochs: int | None = None
    steps: int | None = None
    schedule: str = PAPER
    data: str = "mnist-10k"
    target_losses: tuple[float, ...] = ()
    update: bool = True
    caveat: str = ""

    def __post_init__(self) -> None:
        assert (self.epochs is None) != (self.steps is None), self.name


SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        suite.name: suite
        for suite in (
            Suite(
                name="quick",
                summary="a first look in less than five minutes, of a shallow autoencoder on the embedded digits",
                model="autoencoder-small",
                optimizers=("adam", "diag-sonew", "tridiag-sonew", "band-sonew"),
                precisions=("f32", "bf16-pure"),
                epochs=3,
                schedule=DEFAULT_SCHEDULE,  # `paper` would train the first of three epochs at rate 0
                target_losses=(300.0, 250.0),
                update=False,
                caveat="no ranking of optimizers: three epochs of a model that no rate was tuned for",
            ),
            Suite(
                name="paper",
                summary="the paper's autoencoder table: 100 epochs of full MNIST",
                optimizers=_SYSTEMS,
                forms=_FORMS,
                precisions=("f32", "bf16-pure", "bf16"),
                epochs=100,
                data="mnist",
                target_losses=(60.0, 57.0, 55.0, 54.0),
            ),
            Suite(
                name="devices",
                summary="the same step on every target of this machine",
                optimizers=("tridiag-sonew",),
                targets=(HERE,),
                steps=5,
                update=False,
            ),
            Suite(
                name="precision",
                summary="every precision policy, 20 epochs of full MNIST",
                optimizers=("adam", "tridiag-sonew", "band-sonew"),
                precisions=PRECISIONS,
                epochs=20,
                data="mnist",
                target_losses=(70.0, 62.0, 60.0),
            ),
        )
    }
)
"""The suites by name; the first is the one that `sonew bench` runs by itself."""
