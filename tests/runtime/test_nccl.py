"""Sums by NCCL, with a stand-in for it and for CUDA on this processor: no GPU was there to try the real ones."""

import importlib.util
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime import (
    Alone,
    Device,
    TrainResult,
    TrainSettings,
    load_dataset,
    nccl,
    open_bundle,
    open_device,
    train,
)
from sonew_compiled.runtime.launcher import launched

from .nccl_stand_in import StandIn

pytest.importorskip("mpi4py", reason="there is no MPI: pip install -e '.[mpi]'")

DRIVER = Path(__file__).with_name("worker_driver.py")
LIMIT = 120
SOON = 40


@pytest.fixture(scope="module")
def whole(parts_bundle: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The result of one worker."""
    folder, settings = tmp_path_factory.mktemp("whole") / "run", TrainSettings(epochs=3, learning_rate=3e-3)
    return train(open_bundle(parts_bundle), load_dataset(str(data)), settings, open_device("local-sync"), output=folder)


Job = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def job(parts_bundle: Path, data: Path, tmp_path: Path) -> Job:
    """A run of so many workers into `run`, with a fault of NCCL in one of them."""

    def started(count: int, fault: str, *more: str, tolerant: bool = False) -> subprocess.CompletedProcess[str]:
        (tmp_path / "nccl").mkdir()
        run = ("run", parts_bundle, "--data", data, "--epochs", 3, "-o", tmp_path / "run", "--exchange-by", "nccl")
        words, environment = launched(count, [str(DRIVER), fault, *map(str, (tmp_path / "nccl", *run, *more))])
        if tolerant:
            words[1:1] = ["--with-ft", "ulfm"]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)

    return started


@pytest.mark.parametrize(("count", "more"), [(2, ("--shard-state",)), (4, ())])
def test_the_bits_are_those_of_one_worker(
    count: int, more: tuple[str, ...], job: Job, whole: TrainResult, tmp_path: Path
) -> None:
    """Of two workers each has two of the four micro-batches, and adds them on the host."""
    done = job(count, "nccl-no:9:0", *more)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / whole.checkpoint.name).read_bytes() == whole.checkpoint.read_bytes()
    # The loss, the bias and two matrices; each begins at a multiple of 16 numbers.
    size = 16 + 16 + 32 + 4 * 6
    groups = range(1, count.bit_length())
    calls = [
        *("id" for _ in groups),
        *(f"group {group} of 2" for group in groups),
        *(f"sum {size} of group {group}" for _ in range(18) for group in groups),
        *(f"end of group {group}" for group in reversed(groups)),
    ]
    for rank in range(count):
        assert (tmp_path / "nccl" / f"calls-{rank}").read_text().splitlines() == calls


def test_a_failure_of_nccl_ends_all_in_one_line(job: Job, tmp_path: Path) -> None:
    started = time.monotonic()
    done = job(2, "nccl-code:1:9")
    assert done.returncode != 0
    assert time.monotonic() - started < SOON
    (line,) = [line for line in done.stderr.replace("\0", "").splitlines() if line.startswith("sonew")]
    assert line == (
        f"sonew: worker 1 on {os.uname().nodename}: ncclAllReduce failed on device local-task with code 5: invalid "
        "usage: a fault of the test; NCCL_DEBUG=INFO says more, and --exchange-by host does without NCCL"
    )


def test_the_end_of_a_worker_is_seen_within_a_sum(job: Job, tmp_path: Path) -> None:
    """NCCL itself would wait for it without end."""
    done = job(2, "nccl-kill:1:9", tolerant=True)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.replace("\0", "").splitlines() if line.startswith("sonew")]
    assert "worker 1 has ended without a word; the last whole step, 8 of 18, is in" in line
    assert (tmp_path / "run" / "step-00000008.safetensors").exists()


class Two(Alone):
    """Two workers, for what is looked at before they meet."""

    count = 2


class Three(Alone):
    count = 3


def as_gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(nccl, "Driver", SimpleNamespace(CUDA="local"))
    return open_device("local-sync")


def test_what_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    device = open_device("local-sync")
    said = refusal(UsageError, lambda: nccl.Nccl(device, Two()))
    assert "is for NVIDIA GPUs, and device local-sync is none: choose host, or --device cuda" in said
    device = as_gpu(monkeypatch)
    assert "2, 4, 8 and so on workers, and there are 3" in refusal(UsageError, lambda: nccl.Nccl(device, Three()))

    def lacking(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(nccl.ctypes, "CDLL", lacking)
    said = refusal(UsageError, lambda: nccl.Nccl(device, Two()))
    assert "--exchange-by nccl needs libnccl.so.2, which cannot be loaded (libnccl.so.2: cannot open" in said
    assert "[nccl]'" in said


def test_a_worker_has_a_subtree_of_the_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    device = as_gpu(monkeypatch)
    monkeypatch.setattr(nccl, "load", StandIn(tmp_path, 0).load)
    alone = nccl.Nccl(device, Alone())
    vector = device.upload(np.arange(7, dtype=np.float32))
    assert device.download(alone.sum(vector, 7), "float32", (7,)).tolist() == [0, 1, 2, 3, 4, 5, 6]
    alone.check_shared(8, Path("a.bundle"))
    said = refusal(UsageError, lambda: alone.check_shared(6, Path("a.bundle")))
    assert "a batch of a.bundle has 6 micro-batches, of which 1 workers cannot have 1, 2, 4 or so on each" in said


def test_a_device_without_addresses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    device = as_gpu(monkeypatch)
    monkeypatch.setattr(nccl, "load", StandIn(tmp_path, 0).load)

    def refused(*given: Any) -> Any:
        raise ValueError("buffer type is not supported for export")

    monkeypatch.setattr(device, "hal", SimpleNamespace(create_dlpack_capsule=refused))
    monkeypatch.setattr(device, "upload", lambda array: array)
    said = refusal(SonewError, lambda: nccl.Nccl(device, Alone()))
    assert said == (
        "device local-sync gives no address of a buffer (buffer type is not supported for export): choose "
        "--exchange-by host"
    )
