"""Several workers on this machine, under MPI: the bits of one worker, and an end whatever happens to one of them."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plugins.parts import compile_parts

from sonew_compiled.errors import UsageError
from sonew_compiled.mpi_environment import hidden, rank_started, workers_started
from sonew_compiled.runtime import (
    Dataset,
    Device,
    TrainResult,
    TrainSettings,
    load_dataset,
    open_bundle,
    open_device,
    read_metrics,
    train,
)
from sonew_compiled.runtime.connect import connect
from sonew_compiled.runtime.cores import share_of
from sonew_compiled.runtime.launcher import launched
from sonew_compiled.runtime.workers import shared
from sonew_compiled.step_settings import StepSettings

DRIVER = Path(__file__).with_name("worker_driver.py")
# Seconds after which a job has hung; it takes about three on an idle machine, and that of all combinations a minute.
LIMIT = 1200 if "SONEW_CAMPAIGN" in os.environ else 120
# Seconds in which a job must have ended with a fault: ten after it on an idle machine.
SOON = 40
SETTINGS = TrainSettings(epochs=3, learning_rate=3e-3)

pytest.importorskip("mpi4py", reason="there is no MPI: pip install -e '.[mpi]'")


@pytest.fixture(scope="module")
def whole(parts_bundle: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The result of one worker that is never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    device: Device = open_device("local-sync")
    return train(open_bundle(parts_bundle), load_dataset(str(data)), SETTINGS, device, output=folder)


def mpirun(count: int, *words: object, tolerant: bool = False) -> subprocess.CompletedProcess[str]:
    """A job of so many processes; nothing of it leaves this machine."""
    words_of_all, environment = launched(count, [str(DRIVER), *map(str, words)])
    if tolerant:
        words_of_all[1:1] = ["--with-ft", "ulfm"]
    return subprocess.run(words_of_all, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)


def sonew(*words: object) -> list[str]:
    return [sys.executable, "-c", "from sonew_compiled.cli import main; main()", *map(str, words)]


def ours(text: str) -> list[str]:
    """The lines of stderr that are errors of sonew: MPI's launcher says something of its own, which ends with a 0."""
    return [line for line in text.replace("\0", "").splitlines() if line.startswith("sonew")]


def goes_on(bundle: Path, data: Path, folder: Path, whole: TrainResult) -> bool:
    """Whether one worker resumes the run in a folder to the bits of one that was never stopped."""
    dataset: Dataset = load_dataset(str(data))
    device = open_device("local-sync")
    result = train(open_bundle(bundle), dataset, SETTINGS, device, output=folder, resume=folder)
    return same_bits(result.checkpoint, whole.checkpoint)


def same_bits(one: Path, other: Path) -> bool:
    """Whether two checkpoints are the same file."""
    return one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("count", [3, 4])
def test_workers_sum_to_the_bits_of_one(count: int) -> None:
    done = mpirun(count, "sums")
    assert (done.returncode, done.stdout) == (0, f"{count} workers agree\n"), done.stderr


# Every optimizer with tensors that are updated apart, and every kind of precision, at the least cost of compiling: a
# narrow band, and two tensors, but for adam.
GRID: list[tuple[str, str, dict[str, Any]]] = [
    ("adam", "f16-mixed", {}),
    ("tridiag-sonew", "bf16-sr", {"has_bias": False}),
    ("band-sonew", "bf16", {"has_bias": False, "band": 2}),
    ("shampoo", "f32", {"has_bias": False, "precond_interval": 5}),
    ("muon", "bf16-sr", {"has_bias": False}),
]
if "SONEW_CAMPAIGN" in os.environ:  # all combinations with three tensors, by hand
    GRID = [(name, precision, {}) for name, *_ in GRID for precision in ("f32", "bf16", "f16-mixed", "bf16-sr")]


def test_the_bits_are_those_of_one_worker_with_the_state_whole_or_divided(data: Path, tmp_path: Path) -> None:
    """Whole runs, and `shared`, of which each count of workers does a part."""
    dataset, device = load_dataset(str(data)), open_device("local-sync")
    wanted = {}
    for name, precision, more in GRID:
        path, runs = tmp_path / "bundles" / f"{name}-{precision}", tmp_path / f"{name}-{precision}"
        exchange = "bf16" if name == "tridiag-sonew" else "f32"
        step = StepSettings(clip_norm=0.1, decay=0.1, ema=0.9) if name == "adam" else None
        made = compile_parts(path, precision, optimizer=name, exchange=exchange, step=step, **more)
        bundle = open_bundle(made)
        wanted[runs] = train(bundle, dataset, SETTINGS, device, output=runs / "whole-1").checkpoint
        train(bundle, dataset, SETTINGS, device, output=runs / "divided-1", shard_state=True)
        begun = dataclasses.replace(SETTINGS, max_steps=5)
        train(bundle, dataset, begun, device, output=runs / "shared")
    for count in (2, 4):
        done = mpirun(count, "trains", tmp_path, data)
        assert done.returncode == 0, done.stderr
    for runs, checkpoint in wanted.items():
        others = [path for path in runs.iterdir() if path.name != "whole-1"]
        assert sorted(path.name for path in others) == [
            "divided-1",
            "divided-2",
            "divided-4",
            "shared",
            "whole-2",
            "whole-4",
        ]
        assert not [path for path in others if not same_bits(path / checkpoint.name, checkpoint)]


def test_four_workers_go_on_to_the_bits_of_one(
    parts_bundle: Path, data: Path, whole: TrainResult, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    stopped = dataclasses.replace(SETTINGS, max_steps=4)
    train(open_bundle(parts_bundle), load_dataset(str(data)), stopped, open_device("local-sync"), output=folder)
    words = ("run", parts_bundle, "--data", data, "--resume", folder, "--workers", 4)
    done = subprocess.run(sonew(*words), capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    assert same_bits(folder / whole.checkpoint.name, whole.checkpoint)
    losses = [[row["test_loss"] for row in read_metrics(path)] for path in (folder, whole.metrics.parent)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3
    said = f"train loss {whole.train_loss:.4f}, test loss {whole.test_loss:.4f} after 18 steps"
    assert said in done.stdout
    assert "local-task of 4 workers" in done.stdout
    assert done.stderr.count("epoch 1/3") == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise:1:17", "sonew: worker 1 on HOST: RuntimeError: a fault of the test"),
        ("kill:1:17", ""),
        ("full:0:15", "cannot be written (File too large)"),
        ("drift:1:15", "sonew: worker 1 has a state after step 12 with digest "),
    ],
)
def test_a_fault_ends_all_and_the_last_checkpoint_is_good(
    fault: str, message: str, parts_bundle: Path, data: Path, whole: TrainResult, tmp_path: Path
) -> None:
    """In the second epoch, at the ninth of the steps, which are of two micro-batches for each worker."""
    folder = tmp_path / "run"
    started = time.monotonic()
    # Of a divided state each tensor is the same for all again after the next exchange.
    more = ["--no-shard-state"] if fault.startswith("drift") else []
    done = mpirun(2, fault, "run", parts_bundle, "--data", data, "--epochs", 3, "-o", folder, *more)
    assert done.returncode != 0
    assert time.monotonic() - started < SOON
    if message:
        (line,) = ours(done.stderr)
        assert message.replace("HOST", os.uname().nodename) in line
    else:
        assert "signal 9" in done.stderr  # which MPI's launcher says
    assert goes_on(parts_bundle, data, folder, whole)


def test_the_others_save_the_last_whole_step_if_mpi_lets_them_live(
    parts_bundle: Path, data: Path, whole: TrainResult, tmp_path: Path
) -> None:
    """At the ninth step: each worker of two has two micro-batches in a step."""
    folder = tmp_path / "run"
    run = ("run", parts_bundle, "--data", data, "--epochs", 3)
    done = mpirun(2, "kill:1:17", *run, "-o", folder, tolerant=True)
    assert done.returncode != 0
    (line,) = ours(done.stderr)
    saved = folder / "step-00000008.safetensors"
    assert f"worker 1 has ended without a word; the last whole step, 8 of 18, is in {saved}; go on with: sonew" in line
    assert saved.exists()
    assert goes_on(parts_bundle, data, folder, whole)


LEAVING = """
import atexit, ctypes, os, sys
from sonew_compiled.runtime import mpi_start
beside, last = int(sys.argv[1]), float(sys.argv[2])
os.environ["OMPI_MCA_mpi_ft_enable"] = "1"
mpi_start.workers_of_host = lambda: 2
mpi_start._workers_beside = lambda worker: [worker, worker + 1][:beside]
mpi_start._started_by_launcher = lambda worker: worker
mpi_start._LEAVING, mpi_start._LEAVING_ALL = 0.5, last
atexit.register(ctypes.PyDLL(None).sleep, 2 if (beside, last) == (2, 60) else 60)
mpi_start.prepare_end()
"""


@pytest.mark.parametrize(
    ("beside", "last", "code"),
    [(1, 60, 1), (2, 60, 0), (2, 0.5, 1)],
    ids=["killed-here", "not-killed", "killed-elsewhere"],
)
def test_a_worker_ends_if_another_is_killed_while_mpi_ends(beside: int, last: float, code: int) -> None:
    """Under fault tolerance MPI's end may wait for it, with Python's lock held."""
    words, environment = launched(1, ["-c", LEAVING, str(beside), str(last)])
    said = ["sonew: a worker was killed after all work was done, before all had left MPI"] * code
    started = time.monotonic()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, ours(done.stderr)) == (code, said), done.stderr
    assert time.monotonic() - started < SOON


def test_what_differs_or_never_starts_is_one_line(parts_bundle: Path, data: Path, tmp_path: Path) -> None:
    run = ("run", parts_bundle, "--data", data, "--epochs", 3, "-o", tmp_path / "run")
    done = mpirun(2, "other-seed:1:0", *run)
    (line,) = ours(done.stderr)
    assert done.returncode == 2
    assert line.startswith("sonew: worker 1 has the settings TrainSettings(epochs=3, learning_rate")
    np.savez(f"{data}.other.npz", **{name: array[::-1] for name, array in np.load(data).items()})
    done = mpirun(2, "other-data:1:0", *run)
    (line,) = ours(done.stderr)
    assert done.returncode == 2
    assert line.startswith("sonew: worker 1 has data with fingerprint ")
    done = mpirun(3, "no-mpi4py:0:0", *run)
    (line,) = ours(done.stderr)
    assert done.returncode == 2
    assert line.startswith("sonew: MPI has started 3 workers, and mpi4py cannot be used here ")
    assert not (tmp_path / "run").exists()
    done = mpirun(2, "absent:1:0", *run)
    assert done.returncode == 3
    done = mpirun(2, "late:1:12", *run)
    assert done.returncode != 0
    assert ours(done.stderr) == [
        "sonew: MPI has not connected 2 workers within 12 s: see whether all have started, and why some have ended"
    ]
    # Under fault tolerance MPI lets the others wait for a worker that is killed before all have met.
    started = time.monotonic()
    done = mpirun(3, "lost:1:0", *run, tolerant=True)
    assert (done.returncode, time.monotonic() - started < SOON) == (1, True)
    assert ours(done.stderr) == [
        "sonew: 2 of 3 workers on this machine are left before MPI has connected them: see whether all have started, "
        "and why some have ended"
    ]
    done = mpirun(3, "lost-later:0:0", *run, tolerant=True)
    assert done.returncode == 1
    assert ours(done.stderr) == ["sonew: worker 0 has ended without a word"]
    assert not list((tmp_path / "run").glob("step-*"))


def test_ctrl_c_saves_once_and_another_count_goes_on(
    parts_bundle: Path, data: Path, whole: TrainResult, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    words = ("run", parts_bundle, "--data", data, "--epochs", 3000, "-o", folder, "--workers", 2)
    with subprocess.Popen(sonew(*words), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr)
        assert "epoch 1/3000" in next(lines)
        process.send_signal(signal.SIGINT)
        said = list(lines)
        assert process.wait(LIMIT) == 130
    (line,) = ours("".join(said))
    assert "stopped after step" in line
    assert "go on with: sonew run" in line
    assert line.endswith(" --workers 2")
    assert list(folder.glob("step-*"))


def test_a_worker_that_is_killed_is_named_after_progress_too(parts_bundle: Path, data: Path, tmp_path: Path) -> None:
    words = ("run", parts_bundle, "--data", data, "--epochs", 3000, "-o", tmp_path / "run", "--workers", 2)
    with subprocess.Popen(sonew(*words), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr)
        assert "epoch 1/3000" in next(lines)
        (launcher,) = children(process.pid)
        os.kill(children(launcher)[1], signal.SIGKILL)
        said = "".join(lines)
        assert process.wait(SOON) == 1
    (line,) = ours(said)
    assert "rank 1 with PID" in line
    assert "exited on signal 9" in line


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_without_mpi4py_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.delitem(sys.modules, "sonew_compiled.runtime.mpi", raising=False)
    assert (workers_started(), rank_started()) == (4, 2)
    # From a wheel, pip installs `sonew-compiled[mpi]`, from a checkout, its path.
    with pytest.raises(
        UsageError, match=r"mpi4py cannot be used here .*pip install .*\[mpi\]', or start sonew without"
    ):
        connect()
    with hidden():
        assert workers_started() == 1
    assert workers_started() == 4


def test_workers_that_do_not_find_each_other_are_refused(parts_bundle: Path, tmp_path: Path) -> None:
    """As tasks of Slurm without PMI, or under the launcher of another MPI: each would train alone into one folder."""
    environment = {**os.environ, "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0", "OMPI_ALLOW_RUN_AS_ROOT": "1"}
    # Without MPI's launcher, mpi4py looks for the library in places where this environment may not have it.
    library = Path(launched(1, [])[0][0]).resolve().parents[1] / "lib" / "libmpi.so.40"
    if library.exists():
        environment["MPI4PY_LIBMPI"] = str(library)
    done = subprocess.run(
        sonew("run", parts_bundle, "-o", tmp_path / "run"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, ours(done.stderr)) == (
        2,
        [
            "sonew: 4 workers were started and MPI connects 1: start them by the launcher of the MPI that mpi4py uses, "
            "under Slurm by srun --mpi=pmix"
        ],
    )
    assert not (tmp_path / "run").exists()


def test_workers_share_micro_batches_and_cores() -> None:
    assert [list(shared(7, rank, 3)) for rank in range(3)] == [[0, 1], [2, 3], [4, 5, 6]]
    eight = list(range(8))
    assert [share_of(worker, [eight] * 3) for worker in range(3)] == [[0, 1], [2, 3, 4], [5, 6, 7]]
    assert [share_of(worker, [[3, 5]] * 3) for worker in range(3)] == [[3], [5], [3]]
    bound = [[0, 1], [2, 3]]  # by the launcher
    assert [share_of(worker, bound) for worker in range(2)] == bound
    assert share_of(0, [[]]) == []
