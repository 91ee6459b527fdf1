"""The search of `sonew tune`: which trial starts next, several at once, and when each stops.

Optuna suggests the settings, keeps the trials, and says which of them successive halving stops. A trial that an
interruption cut short is trained again from its start when the study is resumed, and goes on where it was: training has
the same bits every time, so its epochs before then are neither reported nor counted a second time.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonew_compiled.bench._forms import RATE, Form
from sonew_compiled.bench._study import AGAIN, NUMBER, TEST_LOSS, check_made_of, is_begun, sampler_of
from sonew_compiled.bench._trial import Trainer, compile_step
from sonew_compiled.bench._tune_settings import TuneSettings
from sonew_compiled.runtime import load_dataset
from sonew_compiled.runtime.limits import check_setting

TRIAL_BUNDLE = "trial.bundle"


def bundle_names(forms: Sequence[Form]) -> list[str]:
    """The name of each form's bundle in the study's folder."""
    return [TRIAL_BUNDLE if index == 1 else f"trial-{index}.bundle" for index in range(1, len(forms) + 1)]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What ends a search. None stands for no limit.

    Attributes:
      budget: the most epochs of all trials of the study.
      trials: the most trials of the study.
      minutes: the time after which no further trial starts.
      jobs: the number of trials at once.
    """

    budget: int | None = None
    trials: int | None = None
    minutes: float | None = None
    jobs: int = 1


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A trial that is being trained: Optuna's trial, the place of its form, and its settings."""

    form: int
    trial: Any
    values: Mapping[str, float]
    is_known: bool


class Search:
    """A search over the forms of an optimizer, each compiled once for all of its trials."""

    def __init__(
        self,
        optuna: Any,
        settings: TuneSettings,
        forms: Sequence[Form],
        studies: Sequence[Any],
        limits: Limits,
        *,
        folder: Path,
        data_dir: Path | None,
        say: Callable[[Any, Form], None],
    ) -> None:
        """Takes what to search; nothing is compiled before `run`.

        Args:
          optuna: the package.
          settings: the settings of the study.
          forms: what is searched.
          studies: Optuna's study of each form.
          limits: what ends the search.
          folder: receives a bundle for each form.
          data_dir: the folder of the data's files.
          say: is called with Optuna's record of each trial that has ended, and its form.
        """
        self._optuna = optuna
        self._settings = settings
        self._forms = forms
        self._studies = studies
        self._limits = limits
        self._folder = folder
        self._data_dir = data_dir
        self._say = say
        self._until = math.inf if limits.minutes is None else time.monotonic() + 60 * limits.minutes
        # Of all that belongs to Optuna: its storage alone is made for several threads.
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def run(self) -> None:
        """Trains trials until a limit is reached.

        Raises:
          UsageError, SonewError: see `compile_step`; a trial to begin with has a decay that is too slow for the state;
            the study began with another step or other data.
          KeyboardInterrupt: the user stopped it; trials that have not ended stay in the study.
        """
        for study, form in zip(self._studies, self._forms, strict=True):
            self._forget_unasked(study)
            told = [trial.system_attrs.get("fixed_params") for trial in study.trials if trial.state.name != "FAIL"]
            for first in form.first:
                if first not in told:
                    study.enqueue_trial(first)
        if self._next(()) is None:
            return
        self._prepare()
        running: dict[Future[None], _Running] = {}
        with ThreadPoolExecutor(self._limits.jobs) as pool:
            try:
                while True:
                    while len(running) < self._limits.jobs and (index := self._next(running.values())) is not None:
                        begun = self._begin(index, running.values())
                        running[pool.submit(self._train, begun)] = begun
                    if not running:
                        return
                    for ended in wait(running, return_when=FIRST_COMPLETED).done:
                        begun = running.pop(ended)
                        ended.result()
                        self._say(self._record(begun), self._forms[begun.form])
            finally:
                self._stop.set()

    def _prepare(self) -> None:
        """Compiles the forms, and loads each for as many trials as run at once."""
        asked = self._settings
        dataset = load_dataset(asked.data, data_dir=self._data_dir)
        bundles = [
            compile_step(
                form.optimizer,
                self._folder / name,
                model=asked.model,
                precision=asked.precision,
                batch_size=asked.batch_size,
                step=asked.step,
            )
            for form, name in zip(self._forms, bundle_names(self._forms), strict=True)
        ]
        made_of = {"steps": [bundle.digest for bundle in bundles], "data": dataset.fingerprint}
        check_made_of(self._studies[0], made_of, self._folder)
        self._limits_of = [bundle.manifest.setting_limits for bundle in bundles]
        for form, bundle in zip(self._forms, bundles, strict=True):
            for values in map(form.values_of, form.first):
                for name in values.keys() - {RATE}:
                    check_setting(bundle.manifest, name, values[name])
        # One trial may use all cores; several have one each, and the same bits.
        device = "local-task" if self._limits.jobs == 1 else "local-sync"
        self._trainers = [
            [Trainer(bundle, dataset, device=device) for _ in range(self._limits.jobs)] for bundle in bundles
        ]

    def _forget_unasked(self, study: Any) -> None:
        """Ends the trials that a process did not finish asking for when it ended."""
        for trial in study.trials:
            if trial.state.name == "RUNNING" and not is_begun(trial):
                study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    def _next(self, running: Any) -> int | None:
        """The form of the next trial, the one on which the fewest epochs were or will be spent; None if none starts.

        A trial starts only if the budget has its whole length left. What remains when it is stopped is free again.
        """
        limits, whole = self._limits, self._settings.epochs
        with self._lock:
            resumable = [len(self._cut_short(index, running)) for index in range(len(self._forms))]
            trials = [list(filter(is_begun, study.get_trials(deepcopy=False))) for study in self._studies]
            begun = sum(map(len, trials)) - sum(resumable)
            spent = [
                sum(whole if trial.state.name == "RUNNING" else len(trial.intermediate_values) for trial in each)
                for each in trials
            ]
        if time.monotonic() >= self._until or (limits.trials is not None and begun >= limits.trials):
            return None
        # Those that were cut short have their whole length in `spent` already.
        asked = 0 if any(resumable) else whole
        if limits.budget is not None and sum(spent) + asked > limits.budget:
            return None
        order = sorted(range(len(self._forms)), key=lambda index: (not resumable[index], spent[index]))
        return order[0]

    def _cut_short(self, index: int, running: Any) -> list[Any]:
        """The trials of a form that an interruption cut short; the caller has the lock."""
        at_work = {each.trial.number for each in running if each.form == index}
        trials = self._studies[index].get_trials(deepcopy=False)
        return [t for t in trials if t.state.name == "RUNNING" and is_begun(t) and t.number not in at_work]

    def _begin(self, index: int, running: Any) -> _Running:
        """A trial of a form that was cut short, or else another one from Optuna."""
        form, study = self._forms[index], self._studies[index]
        with self._lock:
            if cut := self._cut_short(index, running):
                trial = self._optuna.trial.Trial(study, cut[0]._trial_id)
            else:
                number = sum(is_begun(t) for each in self._studies for t in each.get_trials(deepcopy=False))
                # A sampler for each trial: a study that was resumed suggests what it would have without.
                study.sampler = sampler_of(
                    self._optuna, self._settings.sampler, self._settings.seed + number, len(form.first)
                )
                trial = study.ask({axis.name: self._range(index, axis) for axis in form.axes})
                trial.set_user_attr(NUMBER, number)
            values = form.values_of(trial.params)
        return _Running(form=index, trial=trial, values=values, is_known=values in map(form.values_of, form.known))

    def _range(self, index: int, axis: Any) -> Any:
        least, most = axis.range_under(self._limits_of[index].get(axis.name, math.inf))
        return self._optuna.distributions.FloatDistribution(least, most, log=True)

    def _record(self, begun: _Running) -> Any:
        with self._lock:
            return self._studies[begun.form].get_trials(deepcopy=False)[begun.trial.number]

    def _train(self, begun: _Running) -> None:
        """Trains a trial until it is stopped, and tells Optuna the end."""
        study, trial, states = self._studies[begun.form], begun.trial, self._optuna.trial.TrialState
        with self._lock:
            trainer = self._trainers[begun.form].pop()
            reported = max(study.get_trials(deepcopy=False)[trial.number].intermediate_values, default=0)
        given = dict(begun.values)
        try:
            for epoch in trainer.epochs(
                seed=self._settings.seed,
                epochs=self._settings.epochs,
                learning_rate=given.pop(RATE),
                schedule=self._settings.schedule,
                settings=given,
                stopped=self._stop.is_set,
            ):
                if epoch.epoch <= reported:
                    with self._lock:
                        trial.set_user_attr(AGAIN, trial.user_attrs.get(AGAIN, 0) + 1)
                if epoch.epoch < reported:
                    continue
                is_finite = math.isfinite(epoch.loss)
                with self._lock:
                    if epoch.epoch > reported:
                        trial.report(epoch.loss if is_finite else math.inf, epoch.epoch)
                    if not is_finite:
                        study.tell(trial, math.inf)
                        return
                    if epoch.epoch < self._settings.epochs and trial.should_prune() and not begun.is_known:
                        study.tell(trial, state=states.PRUNED)
                        return
            if self._stop.is_set():
                return
            train_loss, test_loss = trainer.losses(epoch.state)
            with self._lock:
                if math.isfinite(train_loss) and math.isfinite(test_loss):
                    trial.set_user_attr(TEST_LOSS, test_loss)
                study.tell(trial, train_loss if math.isfinite(train_loss) else math.inf)
        finally:
            with self._lock:
                self._trainers[begun.form].append(trainer)
