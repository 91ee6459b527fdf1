"""Starting several workers on this machine, by MPI's launcher."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sonew_compiled.errors import SonewError

_SETTINGS = {
    # Workers of one machine speak through its memory.
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "self,sm",
    # Where there are more of them than cores, none holds a core while it waits.
    "OMPI_MCA_mpi_yield_when_idle": "1",
}
# As in a container, where there is nobody else.
_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def launched(count: int, program: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command line, and its environment, that runs a program of Python in so many processes on this machine.

    Args:
      count: of the processes, more than there are cores if you like.
      program: what follows `python`.

    Raises:
      SonewError: there is no `mpirun`.
    """
    beside = Path(sys.executable).with_name("mpirun")
    launcher = str(beside) if beside.exists() else shutil.which("mpirun")
    if launcher is None:
        raise SonewError("several workers need mpirun, which is not installed: pip install 'sonew-compiled[mpi]'")
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    words = [launcher, "-n", str(count), "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none", sys.executable, *program]
    return words, {**_SETTINGS, **os.environ, **(_AS_ROOT if is_root else {})}
