"""The checks that all workers of a training do the same."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from sonew_compiled.errors import UsageError
from sonew_compiled.runtime.checkpoint import digest
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.state import TrainingState
from sonew_compiled.runtime.versions import runtime_version
from sonew_compiled.runtime.workers import Workers
from sonew_compiled.train_settings import TrainSettings


def check_same_run(
    workers: Workers,
    program: Program,
    state: TrainingState,
    *,
    header: Mapping[str, str],
    settings: TrainSettings,
    is_divided: bool,
) -> None:
    """Checks that all workers begin the same run; a single worker has nothing to compare.

    Args:
      workers: the workers, each of which calls this function.
      program: the bundle on the worker's device.
      state: the state before the first step.
      header: the header of the run's checkpoints.
      settings: the settings of the run.
      is_divided: whether each worker keeps a part of the state.

    Raises:
      UsageError: a worker has another version, bundle, data set, setting, kind of device or state.
    """
    if workers.count == 1:
        return
    facts = {
        "sonew-compiled": importlib.metadata.version("sonew-compiled"),
        "iree-base-runtime": runtime_version(),
        "the bundle": program.bundle.digest,
        "data with fingerprint": header["data_fingerprint"],
        "the settings": settings,
        "a division of the state": is_divided,
        "a device of kind": program.device.driver,
        "code for": program.target.name,
        "a first state with digest": digest(state.download()),
    }
    check_alike(workers, facts)


def check_alike(workers: Workers, facts: Mapping[str, Any], *, remedy: str = "give all workers the same") -> None:
    """Checks that all workers do the same work.

    Args:
      workers: the workers, each of which calls this function.
      facts: the values that must be the same, by their names in the error.
      remedy: the remedy in the error.

    Raises:
      UsageError: a worker has another value; the message names the worker and the value.
    """
    found = workers.gather({what: str(value) for what, value in facts.items()})
    for rank, other in enumerate(found):
        for what in facts:
            if other[what] != found[0][what]:
                raise UsageError(
                    f"worker {rank} has {what} {other[what][:60]}, worker 0 has {found[0][what][:60]}: {remedy}"
                )
