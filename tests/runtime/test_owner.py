"""A folder has one process at a time, and names it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from sonew_compiled.cli import _options
from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import Dataset, Device, RunFolder, TrainSettings, open_bundle, owner, read_metrics, train
from sonew_compiled.runtime.owner import InUseError, owned

Refusal = Callable[..., str]


def test_a_folder_is_one_owners(tmp_path: Path, refusal: Refusal) -> None:
    folder = tmp_path / "deep" / "run"
    with owned(folder):
        message = refusal(InUseError, lambda: owned(folder).__enter__())
        assert f"{folder} is in use by process {os.getpid()} of {platform.node()!r} since '20" in message
        assert "choose another --output" in message
        assert "remove" not in message
    assert not (tmp_path / "deep").exists(), "nothing was written into it"
    folder.mkdir(parents=True)
    for _ in range(2):
        with owned(folder):
            (folder / "file").write_text("")
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"process": {}}', '{"host": "a\\nb", "process": 1, "since": "z"}'])
def test_what_a_killed_owner_left_is_taken_over(
    tmp_path: Path, content: str, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "_PATIENCE", 0.1)
    monkeypatch.setattr(owner, "_ENDING", 0.1)
    (tmp_path / ".owner").write_text(content)
    with owned(tmp_path):
        assert json.loads((tmp_path / ".owner").read_text())["process"] == os.getpid()
        (tmp_path / ".owner").write_text(content)
        assert "is in use by " in refusal(InUseError, lambda: owned(tmp_path).__enter__())
    assert not list(tmp_path.iterdir())


HOLDING = """
import sys, time
from pathlib import Path
from sonew_compiled.runtime.owner import owned
with owned(Path(sys.argv[1])):
    print(flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("is_ending", [True, False])
def test_a_process_is_given_time_to_end(
    tmp_path: Path, is_ending: bool, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    """As a worker whose `mpirun` has gone before it."""
    monkeypatch.setattr(owner, "_ENDING", 60.0 if is_ending else 0.2)
    words = [sys.executable, "-c", HOLDING, str(tmp_path), "0.5" if is_ending else "60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if is_ending:
            with owned(tmp_path):
                assert json.loads((tmp_path / ".owner").read_text())["process"] == os.getpid()
        else:
            message = refusal(InUseError, lambda: owned(tmp_path).__enter__())
            assert f"is in use by process {process.pid} of" in message
        process.kill()


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Leaves the lock file of a process of some machine; who looks at it is soon out of patience."""
    monkeypatch.setattr(owner, "_BEAT", 0.05)
    monkeypatch.setattr(owner, "_PATIENCE", 0.5)

    def leave(host: str, process: int) -> None:
        (tmp_path / ".owner").write_text(json.dumps({"host": host, "process": process, "since": "then"}))

    return leave


@contextlib.contextmanager
def touched(path: Path) -> Iterator[None]:
    """Another process gives signs of life meanwhile."""
    with subprocess.Popen([sys.executable, "-c", TOUCHING, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


TOUCHING = """
import os, sys, time
while True:
    os.utime(sys.argv[1])
    print(flush=True)
    time.sleep(0.05)
"""


@pytest.mark.parametrize("locks", [None, True])
def test_network_file_systems_without_locks_have_signs_of_life(
    tmp_path: Path,
    left: Callable[[str, int], None],
    locks: bool | None,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Refusal,
) -> None:
    """No locks at all, or locks that hold on each machine alone: what a process of another one holds is in use."""
    monkeypatch.setattr(owner, "_try_lock", lambda descriptor: locks)
    left("another", 1)
    with touched(tmp_path / ".owner"):
        message = refusal(InUseError, lambda: owned(tmp_path).__enter__())
    assert f"{tmp_path} is in use by process 1 of 'another' since 'then'" in message
    for content in ('{"host": "another", "process": 1, "since": "then"}', ""):
        (tmp_path / ".owner").write_text(content)
        with owned(tmp_path):
            assert json.loads((tmp_path / ".owner").read_text())["process"] == os.getpid()
        assert not list(tmp_path.iterdir())


def test_owners_give_signs_of_life_without_locks(
    tmp_path: Path, left: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setattr(owner, "_try_lock", lambda descriptor: None)
    before = threading.active_count()
    with owned(tmp_path):
        assert f"process {os.getpid()} of" in refusal(InUseError, lambda: owned(tmp_path).__enter__())
    assert (threading.active_count(), list(tmp_path.iterdir())) == (before, [])


def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(
    tmp_path: Path, left: Callable[[str, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(owner, "_try_lock", lambda descriptor: None)
    monkeypatch.setattr(owner, "_PATIENCE", 1e9)
    left(platform.node(), ended.pid)
    with owned(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_of_two_that_remove_a_stale_file_one_owns_the_folder(tmp_path: Path) -> None:
    """One has removed it, and made it anew, since the other found it to be stale."""
    path = tmp_path / ".owner"
    path.write_text("stale")
    descriptor = os.open(path, os.O_RDONLY)
    path.rename(tmp_path / "gone")
    path.write_text("new")
    owner._remove(path, descriptor)
    assert path.read_text() == "new"
    (tmp_path / "gone").rename(path)
    owner._remove(path, descriptor)
    assert not list(tmp_path.iterdir())
    os.close(descriptor)


def test_no_command_works_in_anothers_folder(
    sonew: Callable[..., Any], small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with owned(Path("mine")):
        for line in (
            ("run", small.bundle, "--data", small.data, "--overwrite"),
            ("tune", "--model", "autoencoder-small", "--trials", 1),
            ("bench", "--epochs", 1),
            ("bench", "--preset", "speed"),
        ):
            result = sonew(*line, "-o", "mine")
            assert (result.code, result.out, result.err.count("\n")) == (1, "", 1), result.err
            assert result.err.startswith("sonew: mine is in use by process"), result.err
        assert [path.name for path in Path("mine").iterdir()] == [".owner"]


def test_who_holds_a_folder_trains_into_it_and_others_read(
    tiny_bundle: Path, tiny_data: Dataset, cpu: Device, tmp_path: Path, refusal: Refusal
) -> None:
    folder = RunFolder(tmp_path / "run")
    bundle, settings = open_bundle(tiny_bundle), TrainSettings(epochs=1, learning_rate=0.05)
    with folder.hold():
        train(bundle, tiny_data, settings, cpu, output=folder)
        refusal(InUseError, lambda: train(bundle, tiny_data, settings, cpu, output=folder.path, resume=folder.path))
        assert len(read_metrics(folder.path)) == 1
        # The owner has to finish a replacement.
        (folder.path / ".replacing").mkdir()
        read_metrics(folder.path)
        assert (folder.path / ".replacing").exists()
    read_metrics(folder.path)
    assert not (folder.path / ".replacing").exists()


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "file").write_text("")
    message = refusal(SonewError, lambda: owned(tmp_path / "file" / "run").__enter__())
    assert "cannot be written (Not a directory): choose another --output" in message


def test_paths_that_begin_with_a_dash_are_paths_in_a_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = TrainSettings(epochs=1, learning_rate=0.5)
    given = {"data": "-d x.npz", "device": "local-task", "settings": settings}
    words = shlex.split(RunFolder("-run").resume_command(Path("--b's bundle"), **given))  # type: ignore[arg-type]
    assert words[:7] == ["sonew", "run", "./--b's bundle", "--resume", "./-run", "--data", "./-d x.npz"]
    taken = click.Command("x", params=[click.Argument(["bundle"], type=_options.PATH)]).make_context("x", words[2:3])
    assert taken.params == {"bundle": Path("--b's bundle")}
