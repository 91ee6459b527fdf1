"""The folders in which compilers work, which are removed however a compiler ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sonew_compiled.errors import SonewError
from sonew_compiled.lowering import iree, scratch
from sonew_compiled.lowering.process import run_to_end
from sonew_compiled.lowering.targets import resolve_target

ADD = b"""
func.func @f(%x: tensor<2xf32>) -> tensor<2xf32> {
  %y = stablehlo.add %x, %x : tensor<2xf32>
  return %y : tensor<2xf32>
}
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A `$TMPDIR` with a space and a quote in its name; it must be empty in the end."""
    folder = tmp_path / "a user's folder"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield folder
    assert list(folder.iterdir()) == []


def test_a_folder_with_a_space_in_its_name(temporary: Path) -> None:
    assert iree.lower_iree(ADD, resolve_target("cpu"), what="tiny")


def test_a_full_disk_is_named(temporary: Path, full_disk: Any, monkeypatch: Any, refusal: Callable[..., str]) -> None:
    said = f"cannot write to {temporary}, where compilers work"
    assert tempfile.gettempdir() == str(temporary)
    with full_disk(after=0):
        message = refusal(SonewError, lambda: iree.lower_iree(ADD, resolve_target("vmvx"), what="tiny"))
    assert message.startswith(said)
    assert message.endswith("free space there, or set TMPDIR to another folder")
    # The compiler itself only reports that it cannot open a file.
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    wrong = b"func.func @f() { no such operation }"
    message = refusal(SonewError, lambda: iree.lower_iree(wrong, resolve_target("vmvx"), what="tiny"))
    assert message.startswith(f"{said} (it is full)")


def test_what_a_killed_process_left_is_removed(temporary: Path) -> None:
    """A folder in which another process still works stays."""
    code = (
        "import os, signal\nfrom sonew_compiled.lowering.scratch import scratch_folder\n"
        "with scratch_folder() as folder:\n print(folder, flush=True)\n os.kill(os.getpid(), signal.SIGKILL)"
    )
    left = Path(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip())
    assert left.is_dir()
    # Killed between two system calls; and another program's, with a name like ours.
    (temporary / "sonew-work-abcdefgh").mkdir()
    unlocked = temporary / "sonew-work-ijklmnop"
    unlocked.mkdir()
    (unlocked / "thesis.tex").write_text("years of work")
    with scratch.scratch_folder() as one, scratch.scratch_folder() as other:
        assert not left.exists()
        assert one.is_dir()
        assert other.is_dir()
        assert not (temporary / "sonew-work-abcdefgh").exists()
        assert (unlocked / "thesis.tex").exists()
    shutil.rmtree(unlocked)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_compiler(temporary: Path, small: Any, tmp_path: Path, number: signal.Signals) -> None:
    command = [Path(sys.executable).parent / "sonew", "compile", "--optimizer", "shampoo", "-o", tmp_path / "bundle"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            compilers = _wait_for(lambda: _children(process.pid, "module.mlir"))
            process.send_signal(number)
            _, said = process.communicate(timeout=90)
        finally:
            process.kill()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "sonew: stopped"
    assert not [pid for pid in compilers if Path(f"/proc/{pid}").exists()]
    assert not (tmp_path / "bundle").exists()


def test_an_exception_ends_all_that_was_started(tmp_path: Path) -> None:
    """This includes processes that the process has started, as a compiler starts its linker."""
    line = f"sleep 60 & echo $! > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; kill -ALRM $PPID; wait"

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_to_end(["sh", "-c", line], environment=os.environ)
    finally:
        signal.signal(signal.SIGALRM, before)
    state = Path(f"/proc/{int((tmp_path / 'pid').read_text())}/stat")
    # A process whose parent never waited for it is a zombie until the system's first process waits.
    _wait_for(lambda: not state.exists() or state.read_text().split()[2] == "Z")


def _children(parent: int, word: str) -> list[int]:
    found = subprocess.run(
        ["ps", "-ww", "--ppid", str(parent), "-o", "pid=,args="], capture_output=True, text=True
    ).stdout
    return [int(line.split()[0]) for line in found.splitlines() if word in line]


def _wait_for(condition: Callable[[], Any]) -> Any:
    for _ in range(600):
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen within a minute")
