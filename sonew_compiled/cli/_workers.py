"""`--workers`: starting MPI's launcher on this machine, and what its workers are told."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from sonew_compiled.cli._say import complain
from sonew_compiled.cli._setting_type import Whole
from sonew_compiled.errors import UsageError
from sonew_compiled.mpi_environment import workers_of_host, workers_started

if TYPE_CHECKING:
    from sonew_compiled.runtime import Device, Workers
    from sonew_compiled.runtime.nccl import Nccl

_EXCHANGES = ("host", "nccl")
# Open MPI puts such lines around its own messages.
_FRAME = re.compile(r"-{40,}\s*")
# The messages of Open MPI's parts about each other when workers end early.
_NOISE = re.compile(r"\[\S+:\d+\] |Abort is in progress|prterun: ")


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--workers`, `--shard-state` and `--exchange-by`."""
    command = click.option(
        "--exchange-by",
        type=click.Choice(_EXCHANGES),
        default=_EXCHANGES[0],
        show_default=True,
        help="What adds the gradients of workers: nccl does it on NVIDIA GPUs.",
    )(command)
    command = click.option(
        "--shard-state/--no-shard-state",
        default=None,
        help="Whether each worker keeps only the optimizer's state of its own tensors.  [default: several workers on "
        "processors do, where the bundle can and MPI ends all if one is lost]",
    )(command)
    return click.option(
        "--workers",
        type=Whole(min=1),
        help="Number of processes that train together on this machine, connected by MPI; the bundle must be "
        "compiled with --micro-batch.  [default: 1]",
    )(command)


def is_worker_by_config() -> bool:
    """Whether MPI has started this process, and --workers comes from a file or variable that started the others too."""

    source = click.get_current_context().get_parameter_source("workers")
    return workers_started() > 1 and source is not click.core.ParameterSource.COMMANDLINE


def check_bundle_for_workers(bundle: Path | None, resume: Path | None) -> None:
    """Checks that several workers have a bundle: none is compiled for them.

    Raises:
      UsageError: neither a bundle nor a run to resume is given.
    """
    if bundle is None and resume is None:
        raise UsageError(
            "several workers need a bundle that exists already: give one made by `sonew compile --micro-batch`"
        )


def device_of(name: str | None, local_rank: int) -> str | None:
    """The device of a worker; of several devices of one kind, that with the worker's number on its machine."""
    from sonew_compiled.contract import Driver
    from sonew_compiled.runtime import list_devices

    if not name or "://" in name or not local_rank:
        return name
    kinds = {each.name.partition("://")[0]: each.driver for each in list_devices()}
    return name if kinds.get(name) in (None, Driver.LOCAL) else f"{name}://{local_rank}"


def exchange_of(kind: str, device: Device, workers: Workers) -> Nccl | None:
    """What adds the buckets of the workers; None stands for their own exchange, through the host.

    Raises:
      UsageError: the workers differ in the choice, or their devices cannot add.
      SonewError: NCCL cannot connect the GPUs.
    """
    from sonew_compiled.runtime.alike import check_alike
    from sonew_compiled.runtime.nccl import Nccl

    check_alike(workers, {"--exchange-by": kind})
    return Nccl(device, workers) if kind == "nccl" else None


def worker_words(workers: Workers, *, shard_state: bool | None, exchange_by: str) -> list[str]:
    """The options that start the same workers again; those of several machines need their own launcher."""
    count = ["--workers", str(workers.count)] if 1 < workers.count == workers_of_host() else []
    shards = {None: [], True: ["--shard-state"], False: ["--no-shard-state"]}[shard_state]
    return [*count, *shards, *([] if exchange_by == _EXCHANGES[0] else ["--exchange-by", exchange_by])]


def start_workers(count: int) -> NoReturn:
    """Runs this command line by `mpirun`, in so many processes, and ends as they do.

    Ctrl-C and termination are handed on to all of them, as what stops a run after a step.

    Raises:
      UsageError: MPI has started this process already.
      SonewError: there is no `mpirun`, or it cannot start them.
    """
    from sonew_compiled.runtime.interruption import Interrupted
    from sonew_compiled.runtime.launcher import launched

    if workers_started() > 1:
        raise UsageError(f"--workers starts MPI, which has started this process already: leave out --workers {count}")
    program = ["-c", "from sonew_compiled.cli import main; main()", *_without_workers(sys.argv[1:])]
    words, environment = launched(count, program)
    process = subprocess.Popen(
        words, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )

    def hand_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGUSR1)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, hand_on)
    assert process.stderr is not None
    said, framed = False, []
    is_framed = False
    for written in process.stderr:
        # Open MPI ends its messages with the byte 0, in front of the next line.
        line = written.lstrip("\0")
        if _FRAME.fullmatch(line):
            is_framed = not is_framed
        elif is_framed or _NOISE.match(line) or not line.strip():
            framed.append(line.strip())
        else:
            # Progress and notes are no reason.
            said = said or line.startswith("sonew")
            complain(line.rstrip("\n"))
    code = process.wait()
    if code and not said:
        complain(f"sonew: mpirun has failed: {' '.join(filter(None, framed))[:300]}")
    sys.exit(code if 0 <= code < 128 or code == Interrupted.exit_code else 1)


def _without_workers(words: list[str]) -> list[str]:
    """The command line without `--workers`."""
    kept = []
    skip = False
    for word in words:
        if not skip and word != "--workers" and not word.startswith("--workers="):
            kept.append(word)
        skip = word == "--workers"
    return kept
