"""Runs of several workers, one of which is killed at a random time, and which one worker then goes on with."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from campaigns.conduct import PATIENCE, seeds

from sonew_compiled.runtime import TrainSettings, load_dataset, open_bundle, open_device, train
from sonew_compiled.runtime.checkpoint import latest
from sonew_compiled.runtime.launcher import launched

pytest.importorskip("mpi4py", reason="there is no MPI: pip install 'sonew-compiled[mpi]'")

MAIN = ["-c", "from sonew_compiled.cli import main; main()"]


def job(words: list[str], *, count: int, tolerant: bool) -> subprocess.Popen[str]:
    command, environment = launched(count, [*MAIN, *words])
    if tolerant:
        command[1:1] = ["--with-ft", "ulfm"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def workers_of(launcher: int) -> list[int]:
    """The processes that the launcher has started."""
    try:
        return [int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]
    except OSError:
        return []


def test_kills_of_workers(parts_bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = tmp_path / "data.npz"
    np.savez(data, train_image=rng.random((83, 2, 2), np.float32), test_image=rng.random((11, 2, 2), np.float32))
    bundle, dataset, device = open_bundle(parts_bundle), load_dataset(str(data)), open_device("local-sync")
    settings = TrainSettings(epochs=40, learning_rate=3e-3)
    whole = train(bundle, dataset, settings, device, output=tmp_path / "whole").checkpoint
    words = ["run", str(parts_bundle), "--data", str(data), "--epochs", "40", "-o"]
    begun = time.monotonic()
    job([*words, str(tmp_path / "timed")], count=2, tolerant=False).communicate(timeout=PATIENCE * 4)
    seconds = time.monotonic() - begun
    for seed in seeds(1):
        random.seed(seed)
        count, is_divided, tolerant = random.choice((2, 3, 4)), random.random() < 0.5, random.random() < 0.5
        victim, delay, folder = random.randrange(count), random.uniform(0.2, 1.1) * seconds, tmp_path / str(seed)
        what = f"seed {seed}: worker {victim} of {count} after {delay:.2f} s, {is_divided=}, {tolerant=}"
        division = "--shard-state" if is_divided else "--no-shard-state"
        process = job([*words, str(folder), division], count=count, tolerant=tolerant)
        time.sleep(delay)
        pids = workers_of(process.pid)
        if victim < len(pids):
            os.kill(pids[victim], signal.SIGKILL)
        killed = time.monotonic()
        _, said = process.communicate(timeout=PATIENCE * 4)
        took = time.monotonic() - killed
        print(f"{what}: ended with {process.returncode} in {took:.1f} s")
        resume = folder if folder.exists() and latest(folder) else None
        is_done = resume is not None and latest(folder) == folder / whole.name
        lines = [line for line in said.splitlines() if line.lstrip("\0").startswith("sonew: ")]
        # Without fault tolerance MPI's launcher says which worker was killed. One that is lost while MPI connects them
        # makes MPI itself abort, with a page of text.
        assert "Traceback" not in said, f"{what} says {said[-2000:]}"
        assert is_done or (process.returncode and took < PATIENCE), f"{what} says {said[-2000:]}"
        is_said = "reported by process" in said or len(lines) == tolerant
        assert is_done or is_said, f"{what} says {said[-2000:]}"
        result = train(bundle, dataset, settings, device, output=folder, resume=resume)
        assert result.checkpoint.read_bytes() == whole.read_bytes(), what
