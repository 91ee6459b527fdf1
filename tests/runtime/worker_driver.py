"""The script that the tests of workers run under mpirun: `sonew` with a fault in one worker, or sums.

mpirun -n 2 python worker_driver.py KIND:RANK:CALL run BUNDLE ...
mpirun -n 2 python worker_driver.py nccl-KIND:RANK:CALL FOLDER run BUNDLE ...
mpirun -n 4 python worker_driver.py sums
mpirun -n 4 python worker_driver.py trains FOLDER DATA
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from nccl_stand_in import StandIn

from sonew_compiled.cli import main
from sonew_compiled.contract import Driver
from sonew_compiled.mpi_environment import rank_started
from sonew_compiled.runtime import (
    TrainingState,
    TrainSettings,
    load_dataset,
    mpi,
    mpi_start,
    nccl,
    open_bundle,
    open_device,
    train,
)
from sonew_compiled.runtime.connect import connect
from sonew_compiled.runtime.reduce import Node, push, total
from sonew_compiled.runtime.workers import Workers, add, shared


def check_sums() -> None:
    """Checks sums of small and large vectors, for numbers of micro-batches that do or do not divide evenly."""
    with connect() as workers:
        for parts in (4, 5, 7, 8):
            for size in (1, 1003, 20_011):
                rng = np.random.default_rng(size)
                values = [rng.standard_normal(size).astype(np.float32) for _ in range(parts)]
                is_rounded = size > 20_000  # some of which are sent in halves
                if is_rounded:
                    for value in values:
                        value[1:].view(np.uint32)[:] &= 0xFFFF0000
                want = total([Node(number, 1, value.copy()) for number, value in enumerate(values)], add)
                check_wanted(workers, values, parts, want)
                mine: list[Node[np.ndarray]] = []
                for number in shared(parts, workers.rank, workers.count):
                    push(mine, Node(number, 1, values[number]), add)
                got = workers.sum(mine, parts, is_rounded=is_rounded)
                assert got is mine[0].value
                assert np.array_equal(got.view(np.uint32), want.view(np.uint32)), (parts, size)
        assert workers.gather(workers.rank) == list(range(workers.count))
        if workers.rank == 0:
            print(f"{workers.count} workers agree")


def check_wanted(workers: Workers, values: list[np.ndarray], parts: int, want: np.ndarray) -> None:
    """Checks the sum of what each worker needs: the first number, and one or two ranges of its own."""
    size, step = want.size, want.size // (2 * workers.count)
    wanted = [[(0, 1)] for _ in range(workers.count)]
    for rank, ranges in enumerate(wanted if step else ()):
        ranges += [(1 + rank * step, 1 + (rank + 1) * step), (size - (rank + 1) * step, size - rank * step)]
    mine: list[Node[np.ndarray]] = []
    for number in shared(parts, workers.rank, workers.count):
        push(mine, Node(number, 1, values[number].copy()), add)
    got = workers.sum(mine, parts, wanted=wanted)
    for start, end in wanted[workers.rank]:
        assert np.array_equal(got[start:end].view(np.uint32), want[start:end].view(np.uint32)), (parts, size, start)


def train_all(folder: Path, data: str) -> None:
    """Trains from each bundle in `FOLDER/bundles` with the state whole and divided, and does a part of a shared run."""
    device, dataset = open_device("local-sync"), load_dataset(data)
    with connect() as workers:
        for path in sorted((folder / "bundles").iterdir()):
            bundle = open_bundle(path)
            for name, is_divided, stop in (
                ("whole", False, None),
                ("divided", True, None),
                ("shared", True, 5 * workers.count),
            ):
                output = folder / path.name / (name if name == "shared" else f"{name}-{workers.count}")
                resume = output if list(output.glob("step-*")) else None
                workers.meet()
                settings = TrainSettings(epochs=3, learning_rate=3e-3, max_steps=stop)
                train(
                    bundle,
                    dataset,
                    settings,
                    device,
                    output=output,
                    resume=resume,
                    workers=workers,
                    shard_state=is_divided,
                )


def fault(kind: str, call: int) -> None:
    """Has the `call`-th micro-batch of this worker end in a fault."""
    gradients: Callable[..., Any] = TrainingState.gradients
    calls = 0

    def counted(self: TrainingState, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            if kind == "raise":
                raise RuntimeError("a fault of the test")
            if kind == "kill":
                end_at_once()
            if kind == "full":
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
            if kind == "drift":
                spec = self.program.manifest.parameters[0]
                array = self.program.download(spec, self.buffers[spec.name])
                self.buffers[spec.name] = self.program.upload(spec, np.nextafter(array, np.float32(9)))
        return gradients(self, *given)

    TrainingState.gradients = counted  # type: ignore[method-assign]


def use_stand_in(libraries: StandIn) -> None:
    """Has the processor pass for an NVIDIA GPU."""
    setattr(nccl, "load", libraries.load)  # noqa: B010
    setattr(nccl, "Driver", SimpleNamespace(CUDA=Driver.LOCAL))  # noqa: B010


def end_at_once() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    what = sys.argv.pop(1)
    if what == "sums":
        check_sums()
    elif what == "trains":
        train_all(Path(sys.argv[1]), sys.argv[2])
    else:
        kind, rank, call = what.split(":")
        if kind.startswith("nccl-"):
            fault_of_nccl = kind.removeprefix("nccl-") if rank_started() == int(rank) else ""
            use_stand_in(StandIn(Path(sys.argv.pop(1)), rank_started(), fault_of_nccl, int(call)))
        if rank_started() == int(rank):
            fault(kind, int(call))
            if kind == "other-seed":
                sys.argv += ["--seed", "5"]
            if kind == "absent":
                # Open MPI 5.0.11's launcher may wait for ever if a process ends while another begins to connect to it.
                time.sleep(5)
                sys.exit(3)
            if kind == "other-data":
                sys.argv[sys.argv.index("--data") + 1] += ".other.npz"
            if kind == "lost-later":
                setattr(mpi, "available_cores", end_at_once)  # noqa: B010
            if kind == "lost":
                end_at_once()
            if kind == "late":
                time.sleep(2 * int(call))
        if kind == "no-mpi4py":
            for name in ("mpi4py", "sonew_compiled.runtime.mpi", "sonew_compiled.runtime.mpi_start"):
                sys.modules.pop(name, None)
            sys.modules["mpi4py"] = None  # type: ignore[assignment]
        if kind == "late":
            mpi_start._START = float(call)
        main()
