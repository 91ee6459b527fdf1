"""`sonew tune`: a search over an optimizer's settings by Optuna, in which each trial is a training.

One compilation serves every trial: the learning rate, and all settings that the optimizer's record allows at run time,
are inputs of the step.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sonew_compiled.bench._study import STUDY_FILE as STUDY_FILE
from sonew_compiled.bench._study import open_study
from sonew_compiled.bench._trial import TRIAL_BUNDLE as TRIAL_BUNDLE
from sonew_compiled.bench._trial import Trainer
from sonew_compiled.errors import UsageError
from sonew_compiled.presets import OptimizerSettings, optimizer_settings, record_of
from sonew_compiled.runtime.owner import owned
from sonew_compiled.runtime.shown import quoted
from sonew_compiled.runtime.tensorfile import write_atomically
from sonew_compiled.setting import flag_of
from sonew_compiled.train_settings import DEFAULT_SCHEDULE

BEST_FILE = "best.json"

RATE_FACTOR = 10.0
"""The factor by which the search goes up and down from the learning rate that ships; other settings have their own."""

# The learning rate matters most, so the first trials have the preset's settings with its rate times each of these.
_FIRST_RATES = (1.0, 3.0, 1 / 3)


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """The settings of a study; a study that is resumed must have the same.

    Attributes:
      optimizer: its name.
      precision: a policy.
      model: its name on the command line.
      batch_size: the examples in a step.
      epochs: the length of every trial.
      schedule: the schedule of the learning rate in every trial.
      data: the data set.
      seed: the seed of the initial weights, of the order of the data and of the sampler.
      sampler: `tpe` or `random`.
      learning_rate: the center of the search; None for the rate that ships.
      settings: settings of the optimizer, by name, in place of those that ship. The search goes around those that a
        step takes at run time; the others are fixed.
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
    settings: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        described = asdict(self)
        return {**described, **described.pop("settings")}


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """The results of a study so far.

    Attributes:
      best: the settings of the best trial by name; None if every trial diverged or was pruned.
      train_loss: the loss of the best trial over the whole training split; likewise None.
      test_loss: the loss of the best trial over the test split; likewise None.
      trials: the number of finished trials, including those that were pruned or diverged.
      each: the trials in order: their settings, `train_loss` (None if pruned or diverged) and `epochs`.
      command: the `sonew compile` that uses the best settings.
    """

    best: dict[str, float] | None
    train_loss: float | None
    test_loss: float | None
    trials: int
    each: tuple[dict[str, float | None], ...]
    command: str | None


def tune(
    settings: TuneSettings,
    folder: Path,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    data_dir: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> TuneResult:
    """Begins the study in a folder, or resumes it, until the budget is spent.

    The value of a trial is the loss over the whole training split after its last epoch. The first trial has the
    settings that ship. The next two have three times, and a third of, its learning rate. After the first quarter of the
    epochs, a trial is pruned if its loss is above the median of the others at the same epoch.

    Args:
      settings: the settings of the study.
      folder: receives `study.journal`, which Optuna reads, `best.json`, and the bundle of the trials.
      trials: the number of trials of the whole study, including those of earlier calls.
      minutes: the time limit of this call.
      data_dir: the folder of the data's files.
      say: is called with a line for every trial.

    Raises:
      UsageError: neither `trials` nor `minutes` is given, or the study in the folder has other settings.
      SonewError: the study's file is damaged, or another process works in the folder.
    """
    check_budget(settings, trials=trials, minutes=minutes)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna").propagate = False
    preset = preset_of(settings)
    axes = _axes(settings, preset)
    with owned(folder):
        return _tune(optuna, settings, preset, axes, folder, trials=trials, minutes=minutes, data_dir=data_dir, say=say)


def check_budget(settings: TuneSettings, *, trials: int | None, minutes: float | None) -> None:
    """Checks that a search ends, and that there is something to search around.

    Raises:
      UsageError: neither `trials` nor `minutes` is given, or the learning rate is 0.
    """
    if trials is None and minutes is None:
        raise UsageError("no budget: give --trials or --minutes")
    if settings.learning_rate == 0:
        raise UsageError("--learning-rate is 0; give a positive one, around which to search")


def _tune(
    optuna: Any,
    settings: TuneSettings,
    preset: OptimizerSettings,
    axes: Sequence[_Axis],
    folder: Path,
    *,
    trials: int | None,
    minutes: float | None,
    data_dir: Path | None,
    say: Callable[[str], None],
) -> TuneResult:
    study = open_study(
        optuna,
        settings.to_json(),
        folder,
        epochs=settings.epochs,
        sampler=settings.sampler,
        seed=settings.seed,
        first_trials=len(_FIRST_RATES),
    )
    left = None if trials is None else max(trials - len(_finished(study)), 0)

    def say_trial(study: Any, trial: Any) -> None:
        asked = ", ".join(f"{key} {value:.4g}" for key, value in _values_of(axes, trial.params).items())
        value = "diverged" if trial.value is None or math.isinf(trial.value) else f"train loss {trial.value:.4f}"
        say(f"trial {trial.number}: {asked}: {'pruned' if trial.state.name == 'PRUNED' else value}")

    if left != 0:
        objective = _Objective(optuna, settings, preset, axes, folder, data_dir)
        # A process that was killed may have told some of them alone.
        told = [trial.system_attrs.get("fixed_params") for trial in study.trials]
        for first in (objective.shipped(factor) for factor in _FIRST_RATES):
            if first not in told:
                study.enqueue_trial(first)
        for asked in _stopped(study):
            study.enqueue_trial(asked)
        # A pruned trial's state is in a reference cycle with the exception that ended it, until it is collected.
        study.optimize(
            objective,
            n_trials=left,
            timeout=None if minutes is None else 60 * minutes,
            callbacks=[say_trial],
            gc_after_trial=True,
        )
    result = _result(study, settings, axes)
    write_atomically(folder / BEST_FILE, [json.dumps(settings.to_json() | asdict(result), indent=1).encode(), b"\n"])
    return result


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """A number to search, on a logarithmic scale.

    Attributes:
      name: the name of the setting, or `learning_rate`.
      center: the center of the search.
      factor: the factor by which the search goes up and down.
      from_one: whether the distance from 1 is searched in place of the number.
      most: the largest value, or distance, to try.
    """

    name: str
    center: float
    factor: float
    from_one: bool = False
    most: float = math.inf

    @property
    def shipped(self) -> float:
        """The parameter of a trial that has the center's value."""
        return 1 - self.center if self.from_one else self.center

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest parameter of a trial."""
        return self.shipped / self.factor, min(self.shipped * self.factor, self.most)

    def suggest(self, trial: Any, limit: float) -> float:
        """A trial's parameter; `limit` is the largest decay with which stored statistics still fall."""
        least, most = self.bounds
        if self.from_one and math.isfinite(limit):
            least = max(least, 1.001 * (1 - limit))  # a little less, since settings are rounded
        return float(trial.suggest_float(self.name, least, most, log=True))

    def value(self, parameter: float) -> float:
        """The setting's value for a trial's parameter, to six digits."""
        return float(f"{1 - parameter if self.from_one else parameter:.6g}")


def preset_of(settings: TuneSettings) -> OptimizerSettings:
    """The optimizer with its settings at the center of the search, and those that are fixed."""
    given: dict[str, Any] = dict(settings.settings)
    return optimizer_settings(settings.optimizer, precision=settings.precision, **given)


def _axes(settings: TuneSettings, preset: OptimizerSettings) -> tuple[_Axis, ...]:
    """The numbers to search: the learning rate, and every setting that a step takes at run time."""
    rate = preset.learning_rate if settings.learning_rate is None else settings.learning_rate
    axes = [_Axis(name="learning_rate", center=rate, factor=RATE_FACTOR)]
    for setting in record_of(preset.name).settings:
        if setting.at_run_time:
            axes.append(
                _Axis(
                    name=setting.name,
                    center=preset.number(setting.name),
                    factor=setting.search,
                    from_one=setting.from_one,
                    # The range ends short of the bound, because rounding could take a value over it.
                    most=1 - setting.least if setting.from_one else 0.99 * setting.most,
                )
            )
    return tuple(axes)


def searched(settings: TuneSettings) -> dict[str, tuple[float, float]]:
    """The range of each number that is searched.

    Raises:
      UsageError: no number can be searched around a value that is given.
    """
    ends = {axis.name: [axis.value(end) for end in axis.bounds] for axis in _axes(settings, preset_of(settings))}
    return {name: (min(each), max(each)) for name, each in ends.items()}


def _values_of(axes: Sequence[_Axis], parameters: Mapping[str, float]) -> dict[str, float]:
    """A trial's parameters as the optimizer's settings."""
    return {axis.name: axis.value(parameters[axis.name]) for axis in axes if axis.name in parameters}


class _Objective:
    """The objective of a study: calling it runs a trial, on a compiled step that all trials share."""

    def __init__(
        self,
        optuna: Any,
        settings: TuneSettings,
        preset: OptimizerSettings,
        axes: Sequence[_Axis],
        folder: Path,
        data_dir: Path | None,
    ) -> None:
        self._optuna = optuna
        self._settings = settings
        self._axes = axes
        self._trainer = Trainer(
            preset,
            model=settings.model,
            precision=settings.precision,
            batch_size=settings.batch_size,
            data=settings.data,
            data_dir=data_dir,
            folder=folder,
        )

    def shipped(self, factor: float) -> dict[str, float]:
        """The parameters of the trial that has the preset's settings, its learning rate times a factor."""
        parameters = {axis.name: axis.shipped for axis in self._axes}
        return {**parameters, "learning_rate": parameters["learning_rate"] * factor}

    def __call__(self, trial: Any) -> float:
        limits = self._trainer.limits
        asked = {axis.name: axis.suggest(trial, limits.get(axis.name, math.inf)) for axis in self._axes}
        given = _values_of(self._axes, asked)
        for epoch in self._trainer.epochs(
            seed=self._settings.seed,
            epochs=self._settings.epochs,
            learning_rate=given.pop("learning_rate"),
            schedule=self._settings.schedule,
            settings=given,
        ):
            if not math.isfinite(epoch.loss):
                return math.inf
            trial.report(epoch.loss, epoch.epoch)
            if epoch.epoch < self._settings.epochs and trial.should_prune():
                raise self._optuna.TrialPruned
        train_loss, test_loss = self._trainer.losses(epoch.state)
        trial.set_user_attr("test_loss", test_loss)
        return train_loss if math.isfinite(train_loss) else math.inf


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _stopped(study: Any) -> list[dict[str, float]]:
    """The settings of a trial that was stopped before its end."""

    def told(*states: str) -> list[dict[str, float]]:
        given = [trial.system_attrs.get("fixed_params") for trial in study.trials if trial.state.name in states]
        return [each for each in given if each]

    there = told("COMPLETE", "PRUNED", "WAITING")
    stopped = []
    for asked in told("FAIL", "RUNNING"):
        if asked not in there:
            there.append(asked)
            stopped.append(asked)
    return stopped


def _result(study: Any, settings: TuneSettings, axes: Sequence[_Axis]) -> TuneResult:
    trials = _finished(study)
    complete = [t for t in trials if t.state.name == "COMPLETE" and t.value is not None and math.isfinite(t.value)]
    best = min(complete, key=lambda trial: trial.value, default=None)
    given = None if best is None else _values_of(axes, best.params)
    words = ["sonew", "compile", "--optimizer", settings.optimizer, "--precision", settings.precision]
    words += ["--model", settings.model, "--batch-size", str(settings.batch_size)]
    words += ["--schedule", settings.schedule]
    words += [
        word for name, value in {**settings.settings, **(given or {})}.items() for word in (flag_of(name), f"{value:g}")
    ]
    return TuneResult(
        best=given,
        train_loss=None if best is None else best.value,
        test_loss=None if best is None else best.user_attrs.get("test_loss"),
        trials=len(trials),
        each=tuple(
            {
                **_values_of(axes, trial.params),
                "train_loss": trial.value if trial in complete else None,
                "epochs": max(trial.intermediate_values, default=0),
            }
            for trial in trials
        ),
        command=None if best is None else " ".join(map(quoted, words)),
    )
