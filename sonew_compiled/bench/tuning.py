"""`sonew tune`: a search over an optimizer's settings, by Optuna, each trial a training by the compiled step.

One compilation serves every trial: learning rate, b1, b2 and eps are inputs of the step.
"""

from __future__ import annotations

import json
import logging
import math
import shlex
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sonew_compiled.bench._trial import Trainer
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.presets import KBFGS_LARGEST_EPS, flag_of, optimizer_settings

STUDY_FILE = "study.journal"
BEST_FILE = "best.json"

# Searched as distances from 1, on a logarithmic scale: 0.9 and 0.99 are as far apart as 0.99 and 0.999.
_ONE_MINUS = ("b1", "b2")
FACTORS: Mapping[str, float] = MappingProxyType({"learning_rate": 10.0, "b1": 4.0, "b2": 5.0, "eps": 30.0})
"""How far from the setting that ships the search goes, up and down; of b1 and b2 their distance from 1."""

# The learning rate matters most: the first trials have what ships, and its rate times these.
_FIRST_RATES = (1.0, 3.0, 1 / 3)


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """What a study searches; one that is resumed must have the same.

    Attributes:
      optimizer: by name.
      precision: a policy.
      model: its name on the command line.
      batch_size: examples in a step.
      epochs: of every trial.
      data: the data set.
      seed: of the initial weights and the order of the data; that of the sampler too.
      sampler: `tpe` or `random`.
      band: of `band-sonew`.
      learning_rate: around which to search; None for the one that ships.
    """

    optimizer: str
    precision: str = "f32"
    model: str = "autoencoder"
    batch_size: int = 1000
    epochs: int = 20
    data: str = "mnist-10k"
    seed: int = 0
    sampler: str = "tpe"
    band: int | None = None
    learning_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """What a study has found so far.

    Attributes:
      best: the settings of the best trial by name; None where every trial diverged or was pruned.
      train_loss: the best trial's, over the whole training split; likewise None.
      test_loss: the best trial's.
      trials: finished, those pruned and diverged included.
      each: the trials in order: their settings, `train_loss` (None if pruned or diverged) and `epochs`.
      command: the `sonew compile` that uses the settings.
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
    """Goes on with the study in a folder, or begins one, until the budget is spent.

    The value of a trial is the loss over the whole training split after its last epoch. The first trial has the
    settings that ship, the next two thrice and a third of their learning rate. Trials whose loss is above the median of
    the others at the same epoch, after the first quarter of the epochs, are pruned.

    Args:
      settings: what is searched.
      folder: gets `study.journal`, which Optuna reads, `best.json`, and the bundle of the trials.
      trials: of the study in all, those of earlier calls included.
      minutes: of this call.
      data_dir: where the data's files are.
      say: is told of every trial, a line each.

    Raises:
      UsageError: neither `trials` nor `minutes` is given, or the study in the folder has other settings.
      SonewError: the study's file is damaged.
    """
    if trials is None and minutes is None:
        raise UsageError("no budget: give --trials or --minutes")
    if settings.learning_rate == 0:
        raise UsageError("--learning-rate is 0; give a positive one, around which to search")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna").propagate = False
    study = _open_study(optuna, settings, folder)
    left = None if trials is None else max(trials - len(_finished(study)), 0)

    def report(study: Any, trial: Any) -> None:
        asked = ", ".join(f"{key} {value:.4g}" for key, value in _settings_of(trial.params).items())
        value = "diverged" if trial.value is None or math.isinf(trial.value) else f"train loss {trial.value:.4f}"
        say(f"trial {trial.number}: {asked}: {'pruned' if trial.state.name == 'PRUNED' else value}")

    if left != 0:
        objective = _Objective(optuna, settings, folder, data_dir)
        if not study.trials:
            for factor in _FIRST_RATES:
                study.enqueue_trial(objective.shipped(factor))
        for asked in _stopped(study):
            study.enqueue_trial(asked)
        # A pruned trial's state is in a cycle with the exception that ended it, and stays until the cycle is collected.
        study.optimize(
            objective,
            n_trials=left,
            timeout=None if minutes is None else 60 * minutes,
            callbacks=[report],
            gc_after_trial=True,
        )
    result = _result(study, settings)
    (folder / BEST_FILE).write_text(json.dumps(asdict(settings) | asdict(result), indent=1) + "\n", encoding="utf-8")
    return result


class _Objective:
    """A trial; its compiled step is shared by all."""

    def __init__(self, optuna: Any, settings: TuneSettings, folder: Path, data_dir: Path | None) -> None:
        self._optuna = optuna
        self._settings = settings
        preset = optimizer_settings(settings.optimizer, precision=settings.precision, band=settings.band)
        self._trainer = Trainer(
            preset,
            model=settings.model,
            precision=settings.precision,
            batch_size=settings.batch_size,
            data=settings.data,
            data_dir=data_dir,
            folder=folder,
        )
        values = {name: getattr(preset, name) for name in ("learning_rate", *self._trainer.names)}
        if settings.learning_rate is not None:
            values["learning_rate"] = settings.learning_rate
        # What is searched, on logarithmic scales, around these.
        self._centers = {name: 1 - value if name in _ONE_MINUS else value for name, value in values.items()}

    def shipped(self, factor: float) -> dict[str, float]:
        """The parameters of the trial that has the preset's settings, its learning rate times a factor."""
        return {**self._centers, "learning_rate": self._centers["learning_rate"] * factor}

    def __call__(self, trial: Any) -> float:
        asked = {}
        for name, center in self._centers.items():
            least, most = center / FACTORS[name], center * FACTORS[name]
            if name in _ONE_MINUS:
                most = min(most, 1.0)  # a decay is not negative
                # Nor so slow that what is stored never falls; a little less, since settings are rounded.
                least = max(least, 1.001 * (1 - self._trainer.limits.get(name, 1.0)))
            elif (self._settings.optimizer, name) == ("kbfgs", "eps"):
                most = min(most, 0.99 * KBFGS_LARGEST_EPS)
            asked[name] = trial.suggest_float(name, least, most, log=True)
        given = _settings_of(asked)
        for epoch in self._trainer.epochs(
            seed=self._settings.seed,
            epochs=self._settings.epochs,
            learning_rate=given.pop("learning_rate"),
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


def _settings_of(parameters: Mapping[str, float]) -> dict[str, float]:
    """A trial's parameters as the optimizer's settings."""
    values = {name: 1 - value if name in _ONE_MINUS else value for name, value in parameters.items()}
    return {name: float(f"{value:.6g}") for name, value in values.items()}


def _open_study(optuna: Any, settings: TuneSettings, folder: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / STUDY_FILE
    try:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name="sonew tune",
            direction="minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=len(_FIRST_RATES), n_warmup_steps=max(2, settings.epochs // 4)
            ),
        )
        had = study.user_attrs.get("settings")
        # A resumed study must not sample again what it began with.
        study.sampler = _sampler(optuna, settings.sampler, settings.seed + len(study.trials))
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise SonewError(f"{path} is not a study of `sonew tune`, or is damaged ({error}): move it away") from None
    asked = asdict(settings)
    if had is None:
        study.set_user_attr("settings", asked)
    for key, value in asked.items():
        if had is not None and had.get(key) != value:
            raise UsageError(
                f"the study in {folder} has {key.replace('_', '-')} {had.get(key)}, not {value}: give the same, or "
                "another -o/--output"
            )
    return study


def _sampler(optuna: Any, name: str, seed: int) -> Any:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # What is good of one setting depends on the others.
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=len(_FIRST_RATES), multivariate=True)


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _stopped(study: Any) -> list[dict[str, float]]:
    """The settings that trials were told to have and did not finish with: those of one that was stopped."""

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


def _result(study: Any, settings: TuneSettings) -> TuneResult:
    trials = _finished(study)
    complete = [t for t in trials if t.state.name == "COMPLETE" and t.value is not None and math.isfinite(t.value)]
    best = min(complete, key=lambda trial: trial.value, default=None)
    given = None if best is None else _settings_of(best.params)
    words = ["sonew", "compile", "--optimizer", settings.optimizer, "--precision", settings.precision]
    words += ["--model", settings.model, "--batch-size", str(settings.batch_size)]
    words += [] if settings.band is None else ["--band", str(settings.band)]
    words += [word for name, value in (given or {}).items() for word in (flag_of(name), f"{value:g}")]
    return TuneResult(
        best=given,
        train_loss=None if best is None else best.value,
        test_loss=None if best is None else best.user_attrs.get("test_loss"),
        trials=len(trials),
        each=tuple(
            {
                **_settings_of(trial.params),
                "train_loss": trial.value if trial in complete else None,
                "epochs": max(trial.intermediate_values, default=0),
            }
            for trial in trials
        ),
        command=None if best is None else shlex.join(words),
    )
