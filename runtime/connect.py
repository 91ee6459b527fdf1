"""The workers of a process, from the launcher that has started it."""

from __future__ import annotations

from sonew_compiled.errors import UsageError
from sonew_compiled.install import install_command
from sonew_compiled.mpi_environment import workers_started
from sonew_compiled.runtime.workers import Alone, Workers


def connect() -> Workers:
    """The workers that `mpirun`, `srun` or `mpiexec` has started, or one alone.

    Raises:
      UsageError: there are several workers, and `mpi4py` or an MPI is not installed, or another MPI than that of the
        launcher, so that each worker would take itself for the only one.
    """
    if workers_started() == 1:
        return Alone()
    try:
        from sonew_compiled.runtime.mpi import MpiWorkers
    except (ImportError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "")[:200]
        raise UsageError(
            f"MPI has started {workers_started()} workers, and mpi4py cannot be used here ({reason}): "
            f"{install_command('mpi')}, or start sonew without MPI's launcher"
        ) from None
    connected = MpiWorkers()
    if connected.count != workers_started():
        raise UsageError(
            f"{workers_started()} workers were started and MPI connects {connected.count}: start them by the launcher "
            "of the MPI that mpi4py uses, under Slurm by srun --mpi=pmix"
        )
    return connected
