"""What the environment says of MPI, and hiding it: no MPI is loaded here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
# IREE takes any of these for a wish for its own collectives, and makes no device where it does not find an MPI library
# by the name that it looks for.
_SEEN_BY_IREE = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPIEXEC_HOSTNAME")


def workers_started() -> int:
    """How many processes of this program MPI's launcher has started; 1 without it."""
    return next((int(os.environ[name]) for name in _SIZES if os.environ.get(name, "").isdecimal()), 1)


def rank_started() -> int:
    """The number of this process among them, from 0 on."""
    return next((int(os.environ[name]) for name in _RANKS if os.environ.get(name, "").isdecimal()), 0)


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Hides from what is done meanwhile that MPI has started this process."""
    kept = {name: os.environ.pop(name) for name in _SEEN_BY_IREE if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
