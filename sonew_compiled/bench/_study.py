"""`study.journal`: the trials of `sonew tune`, which Optuna writes, and the checks before a study is resumed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sonew_compiled.bench._forms import Form
from sonew_compiled.bench._row_format import STEP
from sonew_compiled.bench.studies import MOST_TRIALS
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.json_files import end_last_line, read_lines
from sonew_compiled.runtime.schema import (
    SCALAR,
    Unfit,
    anything,
    integer,
    mapped,
    nullable,
    number,
    path_text,
    record,
    text,
)
from sonew_compiled.runtime.shown import shown

STUDY_FILE = "study.journal"
NUMBER = "number"
"""The attribute of a trial that has its number in the whole study."""
TEST_LOSS = "test_loss"
AGAIN = "epochs_again"
"""The attribute of a trial that has the number of its epochs that were trained again after an interruption."""

MADE_OF = "made_of"
"""The attribute of the first form's study that has the digests of what its trials trained."""

REDUCTION = 3
"""One of so many trials goes on, when successive halving compares them."""

_LARGEST = 32 << 20
# Optuna keeps this file next to the journal while it writes.
_OPTUNAS_LOCK = STUDY_FILE + ".lock"

_OPERATION = record({"op_code": integer(0, 100), "worker_id": text()}, others=anything)
_SETTINGS = record({}, {**STEP, "data": path_text()}, others=SCALAR)
_FIXED = nullable(mapped(number(), 100))
# Optuna's pruner keeps here the values that it compares.
_RUNG = "completed_rung_"


def rungs_of(epochs: int) -> list[int]:
    """The epochs after which trials are compared: a ninth and a third of the whole, rounded up."""
    first = -(-epochs // REDUCTION**2)
    return [rung for rung in (first, first * REDUCTION) if rung < epochs]


def open_study(optuna: Any, asked: Mapping[str, Any], forms: Sequence[Form], folder: Path, *, epochs: int) -> list[Any]:
    """Begins the study in a folder that this process owns, or resumes the one that is there.

    Optuna sees a study of its own for each form, so that it compares trials and fits its samplers within a form.

    Args:
      optuna: the package.
      asked: the settings of the study, as JSON values.
      forms: what is searched.
      folder: the study's folder.
      epochs: the length of a whole training.

    Returns:
      Optuna's study of each form.

    Raises:
      UsageError: the study has other settings, or begins with other trials.
      SonewError: the file cannot be read, or is damaged.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = folder / STUDY_FILE
    remedy = "move it away"
    read_lines(path, _OPERATION, what="an operation of a study", remedy=remedy, largest=_LARGEST, constants=True)
    end_last_line(path, _OPERATION, constants=True)
    # A process that was killed while writing leaves the lock. Nobody else works in the folder.
    (folder / _OPTUNAS_LOCK).unlink(missing_ok=True)
    described = [form.to_json() for form in forms]
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        studies = [
            optuna.create_study(
                storage=storage,
                study_name=f"sonew tune {index}" if index > 1 else "sonew tune",
                direction="minimize",
                load_if_exists=True,
                pruner=optuna.pruners.SuccessiveHalvingPruner(
                    min_resource=-(-epochs // REDUCTION**2), reduction_factor=REDUCTION
                ),
            )
            for index in range(1, len(forms) + 1)
        ]
        first = studies[0]
        had: dict[str, Any] | None = nullable(_SETTINGS)(first.user_attrs.get("settings"), "the settings")
        had_forms = first.user_attrs.get("forms")
        for study, form in zip(studies, forms, strict=True):
            _check(study, form, epochs)
    except OSError:
        raise
    except Exception as error:
        # Optuna does not check its input, so any exception may follow.
        why = str(error) if isinstance(error, Unfit) else f"{type(error).__name__} {shown(str(error))}"
        raise SonewError(f"{path} is not a study of `sonew tune`, or is damaged ({why}): {remedy}") from None
    if had is None:
        first.set_user_attr("forms", described)
        first.set_user_attr("settings", dict(asked))
        return studies
    for key in dict.fromkeys([*asked, *had]):
        if had.get(key) != asked.get(key):
            raise UsageError(
                f"the study in {folder} has {key.replace('_', '-')} {shown(had.get(key))}, not {asked.get(key)}: give "
                "the same, or another -o/--output"
            )
    if had_forms != described:
        raise UsageError(
            f"the study in {folder} begins with other trials: give the same --enqueue, or another -o/--output; "
            "releases differ in what they begin with"
        )
    return studies


def check_made_of(study: Any, made_of: Mapping[str, Any], folder: Path) -> None:
    """Checks that a study goes on with the steps and the data that it began with, and notes them where it begins.

    Args:
      study: Optuna's study of the first form.
      made_of: the digests of the forms' bundles and of the data.
      folder: the study's folder.

    Raises:
      UsageError: a digest is another one, so that its trials could not be compared with those that come.
    """
    had = study.user_attrs.get(MADE_OF)
    if had is None:
        study.set_user_attr(MADE_OF, dict(made_of))
    elif had != made_of:
        is_data = not isinstance(had, dict) or had.get("data") != made_of["data"]
        other = "other data" if is_data else "another step: its model, a package or the processor was another"
        raise UsageError(f"the study in {folder} was made with {other}; give another -o/--output")


def is_begun(trial: Any) -> bool:
    """Whether a trial has all that it needs to be trained: a process may end while it asks for one."""
    return trial.state.name in ("COMPLETE", "PRUNED", "RUNNING") and NUMBER in trial.user_attrs


def _check(study: Any, form: Form, epochs: int) -> None:
    """Checks the values that Optuna's samplers and this package compute with.

    Raises:
      Unfit: a value is of another kind.
    """
    if len(study.trials) > MOST_TRIALS:
        raise Unfit(f"it has {len(study.trials):,} trials, more than {MOST_TRIALS:,}")
    if [direction.name for direction in study.directions] != ["MINIMIZE"]:
        raise Unfit("it does not search for the least of one value")
    for trial in study.trials:
        place = f"trial {trial.number}"
        for name, distribution in trial.distributions.items():
            if type(distribution).__name__ != "FloatDistribution" or not distribution.log:
                raise Unfit(f"{shown(name)} of {place} is not searched on a logarithmic scale")
            number(distribution.low, distribution.high)(trial.params[name], f"{shown(name)} of {place}")
        missing = [axis.name for axis in form.axes if axis.name not in trial.params]
        if is_begun(trial) and missing:
            raise Unfit(f"{place} has no {missing[0]}")
        _FIXED(trial.system_attrs.get("fixed_params"), f"fixed_params of {place}")
        nullable(number())(trial.user_attrs.get(TEST_LOSS), f"{TEST_LOSS} of {place}")
        for name in (NUMBER, AGAIN):
            nullable(integer())(trial.user_attrs.get(name), f"{name} of {place}")
        for epoch in trial.intermediate_values:
            integer(1, epochs)(epoch, f"an epoch of {place}")
        rungs = [value for name, value in trial.system_attrs.items() if name.startswith(_RUNG)]
        for value in (*(trial.values or ()), *trial.intermediate_values.values(), *rungs):
            if type(value) not in (int, float):
                raise Unfit(f"a value of {place} is {shown(value)}, not a number")
        if trial.state.name == "COMPLETE" and trial.value is None:
            raise Unfit(f"{place} is complete and has no value")


def sampler_of(optuna: Any, name: str, seed: int, first_trials: int) -> Any:
    """Optuna's sampler of this name, `tpe` or `random`, which takes effect after the first trials."""
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # The best value of one setting depends on the others.
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=first_trials, multivariate=True)
