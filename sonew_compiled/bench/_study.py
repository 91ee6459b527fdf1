"""`study.journal`: the trials of `sonew tune`, which Optuna writes, and the checks before a study is resumed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

# The schedule of a study that does not say.
_OLD_SCHEDULE = "paper"

_LARGEST = 32 << 20
_MOST_TRIALS = 10_000
# Optuna keeps this file next to the journal while it writes.
_OPTUNAS_LOCK = STUDY_FILE + ".lock"

_OPERATION = record({"op_code": integer(0, 100), "worker_id": text()}, others=anything)
_SETTINGS = record({}, {"settings": mapped(SCALAR, 100), "data": path_text()}, others=SCALAR)
_FIXED = nullable(mapped(number(), 100))


def open_study(
    optuna: Any, asked: Mapping[str, Any], folder: Path, *, epochs: int, sampler: str, seed: int, first_trials: int
) -> Any:
    """Begins the study in a folder that this process owns, or resumes the one that is there.

    Args:
      optuna: the package.
      asked: the settings of the study, as JSON values.
      folder: the study's folder.
      epochs: the length of each trial.
      sampler: `tpe` or `random`.
      seed: the seed of the sampler.
      first_trials: the number of trials before sampler and pruner take effect.

    Raises:
      UsageError: the study has other settings.
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
    try:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name="sonew tune",
            direction="minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=first_trials, n_warmup_steps=max(2, epochs // 4)),
        )
        had: dict[str, Any] | None = nullable(_SETTINGS)(study.user_attrs.get("settings"), "the settings")
        _check(study)
        # A resumed study must not repeat its first samples.
        study.sampler = _sampler(optuna, sampler, seed + len(study.trials), first_trials)
    except OSError:
        raise
    except Exception as error:
        # Optuna does not check its input, so any exception may follow.
        why = str(error) if isinstance(error, Unfit) else f"{type(error).__name__} {shown(str(error))}"
        raise SonewError(f"{path} is not a study of `sonew tune`, or is damaged ({why}): {remedy}") from None
    if had is None:
        study.set_user_attr("settings", dict(asked))
        return study
    had = {"schedule": _OLD_SCHEDULE, **had}
    for key in dict.fromkeys([*asked, *had]):
        if had.get(key) != asked.get(key):
            raise UsageError(
                f"the study in {folder} has {key.replace('_', '-')} {shown(had.get(key))}, not {asked.get(key)}: give "
                "the same, or another -o/--output"
            )
    return study


def _check(study: Any) -> None:
    """Checks the values that Optuna's samplers and this package compute with.

    Raises:
      Unfit: a value is of another kind.
    """
    if len(study.trials) > _MOST_TRIALS:
        raise Unfit(f"it has {len(study.trials):,} trials, more than {_MOST_TRIALS:,}")
    if [direction.name for direction in study.directions] != ["MINIMIZE"]:
        raise Unfit("it does not search for the least of one value")
    for trial in study.trials:
        place = f"trial {trial.number}"
        for name, distribution in trial.distributions.items():
            if type(distribution).__name__ != "FloatDistribution" or not distribution.log:
                raise Unfit(f"{shown(name)} of {place} is not searched on a logarithmic scale")
            number(distribution.low, distribution.high)(trial.params[name], f"{shown(name)} of {place}")
        _FIXED(trial.system_attrs.get("fixed_params"), f"fixed_params of {place}")
        nullable(number())(trial.user_attrs.get("test_loss"), f"test_loss of {place}")
        for epoch in trial.intermediate_values:
            integer()(epoch, f"an epoch of {place}")
        for value in (*(trial.values or ()), *trial.intermediate_values.values()):
            if type(value) not in (int, float):
                raise Unfit(f"a value of {place} is {shown(value)}, not a number")
        if trial.state.name == "COMPLETE" and trial.value is None:
            raise Unfit(f"{place} is complete and has no value")


def _sampler(optuna: Any, name: str, seed: int, first_trials: int) -> Any:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # The best value of one setting depends on the others.
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=first_trials, multivariate=True)
