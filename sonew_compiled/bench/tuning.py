"""`sonew tune`: a search over an optimizer's settings by Optuna, in which each trial is a training.

One compilation serves every trial of a form of the optimizer: the learning rate, and all settings that the optimizer's
record allows at run time, are inputs of the step.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sonew_compiled.bench._forms import RATE_FACTOR as RATE_FACTOR
from sonew_compiled.bench._forms import Form as Form
from sonew_compiled.bench._forms import forms_of as forms_of
from sonew_compiled.bench._forms import preset_of as preset_of
from sonew_compiled.bench._forms import searched as searched
from sonew_compiled.bench._machine import threads as machine_threads
from sonew_compiled.bench._search import Limits as Limits
from sonew_compiled.bench._search import Search
from sonew_compiled.bench._search import bundle_names as bundle_names
from sonew_compiled.bench._study import AGAIN, NUMBER, TEST_LOSS, is_begun, open_study
from sonew_compiled.bench._study import STUDY_FILE as STUDY_FILE
from sonew_compiled.bench._study import rungs_of as rungs_of
from sonew_compiled.bench._tune_settings import TuneSettings as TuneSettings
from sonew_compiled.bench.studies import BEST_FILE
from sonew_compiled.errors import UsageError, counted, measured
from sonew_compiled.presets import Value, optimizer_settings
from sonew_compiled.runtime.owner import owned
from sonew_compiled.runtime.shown import quoted
from sonew_compiled.runtime.tensorfile import write_atomically
from sonew_compiled.setting import flag_of, written


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """The results of a study so far.

    Attributes:
      best: the settings of the best trial by name; None if every trial diverged or was stopped.
      train_loss: the loss of the best trial over the whole training split; likewise None.
      test_loss: the loss of the best trial over the test split; likewise None.
      trials: the number of trials that have ended, including those that were stopped or diverged.
      stopped: how many of them successive halving stopped before the end.
      budget: the limit on the epochs of the study; None if it had none.
      epochs_spent: the epochs of all trials, those of a trial that has not ended as well; one in which a loss became
        infinite counts as a whole.
      epochs_again: the epochs that were trained a second time, because an interruption had cut their trial short; they
        are not in `epochs_spent`, and not in the budget.
      each: the trials that have ended, in the order in which they began: `trial`, the number; the settings;
        `train_loss` and `test_loss`, None unless it was trained to the end; `epochs`; `epoch_loss`, the mean over the
        batches of the last epoch, None if it is infinite; and `ended`, which is `whole`, `stopped` or `diverged`.
      command: the `sonew compile` that uses the best settings.
    """

    best: dict[str, Value] | None
    train_loss: float | None
    test_loss: float | None
    trials: int
    stopped: int
    budget: int | None
    epochs_spent: int
    epochs_again: int
    each: tuple[dict[str, Any], ...]
    command: str | None


def tune(
    settings: TuneSettings,
    folder: Path,
    *,
    budget: int | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    jobs: int = 1,
    data_dir: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> TuneResult:
    """Begins the study in a folder, or resumes it, until a limit is reached.

    The value of a trial is the loss over the whole training split after its last epoch. All forms of the optimizer are
    searched, each by itself, and share the epochs evenly (`Form`). The first trials of a form have the settings that
    ship and others that are known, and are trained to the end; then come three times, and a third of, the first rate.
    Successive halving stops the others: after a ninth of the epochs, and after a third, only a trial in the best third
    of those that came so far goes on.

    A trial has the same numbers however many run at once. Which settings are suggested depends on those that have
    ended, and so on the speed of each if there are several at once.

    Args:
      settings: the settings of the study.
      folder: receives `study.journal`, which Optuna reads, `best.json`, and a bundle for the trials of each form.
      budget: the most epochs of all trials of the study, including those of earlier calls. A trial starts only if its
        whole length is left.
      trials: the most trials of the study, including those of earlier calls.
      minutes: the time after which no further trial starts in this call.
      jobs: the number of trials at once. One uses all cores; several have a core each.
      data_dir: the folder of the data's files.
      say: is called with a line for every trial that ends.

    Raises:
      UsageError: there is no limit, the budget is less than one trial, there are fewer cores than jobs, or the study in
        the folder has other settings.
      SonewError: the study's file is damaged, or another process works in the folder.
    """
    limits = Limits(budget=budget, trials=trials, minutes=minutes, jobs=jobs)
    check_limits(settings, limits)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna").propagate = False
    forms = forms_of(settings)
    with owned(folder):
        studies = open_study(optuna, settings.to_json(), forms, folder, epochs=settings.epochs)

        def say_trial(trial: Any, form: Form) -> None:
            spent = _spent(studies)
            words = counted(spent, "epoch") if budget is None else f"{spent:,} of {counted(budget, 'epoch')}"
            say(f"{_in_words(trial, form)}; {words} spent")

        search = Search(optuna, settings, forms, studies, limits, folder=folder, data_dir=data_dir, say=say_trial)
        try:
            search.run()
        finally:
            result = _result(studies, settings, forms, budget)
            described = json.dumps(settings.to_json() | asdict(result), indent=1, allow_nan=False)
            write_atomically(folder / BEST_FILE, [described.encode(), b"\n"])
    return result


def check_limits(settings: TuneSettings, limits: Limits) -> None:
    """Checks that a search ends and can begin, and that there is something to search around.

    Raises:
      UsageError: there is no limit, the budget is less than one trial, there are fewer cores than jobs, or the learning
        rate is 0.
    """
    if limits.budget is None and limits.trials is None and limits.minutes is None:
        raise UsageError("no budget: give --budget, --trials or --minutes")
    if limits.budget is not None and limits.budget < settings.epochs:
        raise UsageError(
            f"--budget {limits.budget} is less than one trial of {settings.epochs} epochs; give at least "
            f"{settings.epochs}, or fewer --epochs"
        )
    if limits.jobs > (threads := machine_threads()):
        raise UsageError(
            f"--jobs {limits.jobs} is more than the {counted(threads, 'processor thread')} here, of which each trial "
            f"takes one; give at most {threads}"
        )
    if settings.learning_rate == 0:
        raise UsageError("--learning-rate is 0; give a positive one, around which to search")


def _trials(studies: Sequence[Any]) -> list[tuple[int, Any]]:
    """All trials that have begun, each with the place of its form, in the order in which they began."""
    each = ((index, trial) for index, study in enumerate(studies) for trial in study.get_trials(deepcopy=False))
    begun = [(index, trial) for index, trial in each if is_begun(trial)]
    return sorted(begun, key=lambda each: each[1].user_attrs[NUMBER])


def _spent(studies: Sequence[Any]) -> int:
    return sum(len(trial.intermediate_values) for _, trial in _trials(studies))


def _in_words(trial: Any, form: Form) -> str:
    """What came of a trial, on a line."""
    told = [*form.told.items(), *((key, f"{value:.4g}") for key, value in form.values_of(trial.params).items())]
    epochs = max(trial.intermediate_values, default=0)
    ended = {
        "whole": f"train loss {measured(trial.value)}",
        "stopped": f"stopped at epoch {epochs}, loss {measured(trial.value)}",
        "diverged": f"diverged in epoch {epochs}",
    }
    return f"trial {trial.user_attrs[NUMBER]}: {', '.join(f'{a} {b}' for a, b in told)}: {ended[_ended(trial)]}"


def _ended(trial: Any) -> str:
    if trial.state.name == "PRUNED":
        return "stopped"
    return "whole" if math.isfinite(trial.value) else "diverged"


def _result(studies: Sequence[Any], settings: TuneSettings, forms: Sequence[Form], budget: int | None) -> TuneResult:
    begun = _trials(studies)
    ended = [(forms[index], trial) for index, trial in begun if trial.state.name != "RUNNING"]
    whole = [each for each in ended if _ended(each[1]) == "whole"]
    form, best = min(whole, key=lambda each: each[1].value, default=(forms[0], None))
    given: dict[str, Value] | None = None if best is None else form.settings_of(best.params)
    return TuneResult(
        best=given,
        train_loss=None if best is None else best.value,
        test_loss=None if best is None else best.user_attrs.get(TEST_LOSS),
        trials=len(ended),
        stopped=sum(_ended(trial) == "stopped" for _, trial in ended),
        budget=budget,
        epochs_spent=_spent(studies),
        epochs_again=sum(trial.user_attrs.get(AGAIN, 0) for _, trial in begun),
        each=tuple(_row(*each) for each in ended),
        command=None if best is None else _command(settings, form, best),
    )


def _row(form: Form, trial: Any) -> dict[str, Any]:
    epochs = max(trial.intermediate_values, default=0)
    last = trial.intermediate_values.get(epochs, math.inf)
    how = _ended(trial)
    return {
        "trial": trial.user_attrs[NUMBER],
        **form.settings_of(trial.params),
        "train_loss": trial.value if how == "whole" else None,
        "test_loss": trial.user_attrs.get(TEST_LOSS),
        "epochs": epochs,
        "epoch_loss": last if math.isfinite(last) else None,
        "ended": how,
    }


def _command(settings: TuneSettings, form: Form, best: Any) -> str:
    words = ["sonew", "compile", "--optimizer", settings.optimizer, "--precision", settings.precision]
    words += ["--model", settings.model, "--batch-size", str(settings.batch_size)]
    words += ["--schedule", settings.schedule]
    shipped = optimizer_settings(settings.optimizer, precision=settings.precision).values
    compiled_in = {key: value for key, value in form.optimizer.values.items() if value != shipped.get(key)}
    for name, value in {**compiled_in, **settings.settings, **form.values_of(best.params)}.items():
        words += [] if value is None else [flag_of(name), written(value)]
    words += settings.step.flags()
    return " ".join(map(quoted, words))
