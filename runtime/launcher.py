"""Starting several workers on this machine, by MPI's launcher."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sonew_compiled.errors import SonewError
from sonew_compiled.install import install_command

_SETTINGS = {
    # Workers of one machine communicate through its memory.
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "self,sm",
    # If there are more workers than cores, a waiting worker must not hold a core.
    "OMPI_MCA_mpi_yield_when_idle": "1",
}
# Containers usually run as root.
_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def launched(count: int, program: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command line, with its environment, that runs Python in several processes on this machine.

    Args:
      count: the number of processes, which may exceed that of the cores.
      program: the arguments of `python`.

    Raises:
      SonewError: there is no `mpirun`.
    """
    beside = Path(sys.executable).with_name("mpirun")
    launcher = str(beside) if beside.exists() else shutil.which("mpirun")
    if launcher is None:
        raise SonewError(f"several workers need mpirun, which is not installed: {install_command('mpi')}")
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    words = [launcher, "-n", str(count), "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none", sys.executable, *program]
    return words, {**_SETTINGS, **os.environ, **(_AS_ROOT if is_root else {})}
