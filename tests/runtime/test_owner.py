"""A folder has one process at a time, and names it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
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
def test_what_a_killed_owner_left_is_taken_over(tmp_path: Path, content: str, refusal: Refusal) -> None:
    (tmp_path / ".owner").write_text(content)
    with owned(tmp_path):
        assert json.loads((tmp_path / ".owner").read_text())["process"] == os.getpid()
        (tmp_path / ".owner").write_text(content)
        assert "is in use by " in refusal(InUseError, lambda: owned(tmp_path).__enter__())
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_has_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(owner, "_try_lock", lambda descriptor: None)

    def left(host: str, process: int) -> None:
        (tmp_path / ".owner").write_text(json.dumps({"host": host, "process": process, "since": "then"}))

    for host, process in (("another", ended.pid), (platform.node(), os.getpid())):
        left(host, process)
        message = refusal(InUseError, lambda: owned(tmp_path).__enter__())
        assert f"process {process} of {host!r} since 'then'" in message
        assert f"if it is not running any more, remove {tmp_path / '.owner'}" in message
    left(platform.node(), ended.pid)
    with owned(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


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
