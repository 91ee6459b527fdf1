"""MPI's variables in the environment: reading and hiding them, without loading MPI."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

# Set by Open MPI's launcher, by launchers that speak PMI, and by Slurm's, which sets none of them under PMIx.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
# Set by Open MPI's launcher.
_TOLERANT = "OMPI_MCA_mpi_ft_enable"
LOCAL_SIZE = "OMPI_COMM_WORLD_LOCAL_SIZE"
"""Open MPI's variable with the number of workers of this machine."""

# IREE reads any of these as a request for its own collectives, and makes no device if it does not find an MPI library
# under the name that it expects.
_SEEN_BY_IREE = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPIEXEC_HOSTNAME")


def workers_started() -> int:
    """The number of processes that MPI's launcher, or Slurm's, has started; 1 without a launcher."""
    return next((int(os.environ[name]) for name in _SIZES if os.environ.get(name, "").isdecimal()), 1)


def rank_started() -> int:
    """The number of this process among them, from 0."""
    return next((int(os.environ[name]) for name in _RANKS if os.environ.get(name, "").isdecimal()), 0)


def workers_of_host() -> int:
    """The number of workers that Open MPI's launcher starts on this machine; 0 under other launchers."""
    number = os.environ.get(LOCAL_SIZE, "")
    return int(number) if number.isdecimal() else 0


def is_fault_tolerant() -> bool:
    """Whether Open MPI's launcher lets workers outlive another one: `mpirun --with-ft ulfm`."""
    return os.environ.get(_TOLERANT, "0") not in ("0", "")


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """A context that hides from other code that MPI has started this process."""
    kept = {name: os.environ.pop(name) for name in _SEEN_BY_IREE if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
