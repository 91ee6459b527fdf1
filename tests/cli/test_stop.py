"""Ctrl-C at any moment ends a command with exit code 130 and one line."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_an_error_while_xla_is_at_work_ends_the_process(sonew: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's shutdown would wait for its threads, and abort: `tune` that is stopped says so by an error."""
    codes = []

    def ended(code: int) -> None:
        codes.append(code)
        raise SystemExit(code)

    monkeypatch.setattr("sonew_compiled.background.end_process", ended)
    assert (sonew("inspect", "nothing").code, codes) == (2, [2])


def test_help_waits_for_no_library() -> None:
    program = """
import sys
from sonew_compiled.cli import main
sys.argv = ["sonew", "--help"]
try:
    main()
finally:
    print(*sorted({"numpy", "rich", "jax", "iree", "matplotlib"} & sys.modules.keys()), file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout[:6], ended.stderr) == (0, "Usage:", "\n")


# A module that is stopped while it is imported, and makes another error of that, as NumPy does.
WITHIN_AN_IMPORT = """
try:
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
except KeyboardInterrupt:
    raise ImportError("stopped within an import")

def work():
    time.sleep(20)
"""
# A callback whose exceptions Python ignores, as XLA's of the garbage collection.
WITHIN_A_CALLBACK = """
def stop(*_):
    gc.callbacks.remove(stop)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)

def work():
    gc.callbacks.append(stop)
    gc.collect()
    time.sleep(20)
"""


@pytest.mark.parametrize("module", [WITHIN_AN_IMPORT, WITHIN_A_CALLBACK], ids=["import", "callback"])
def test_ctrl_c_is_not_lost_at_a_bad_moment(tmp_path: Path, module: str) -> None:
    (tmp_path / "stopped.py").write_text(f"import gc, os, signal, time\n{module}")
    program = """
import signal, sys
from sonew_compiled.cli import _main, main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts in the background

def targets():
    import stopped
    stopped.work()
    print("not stopped")

_main.sonew.commands["targets"].callback = targets
_main.sonew.commands["targets"].params = []
sys.argv = ["sonew", "targets"]
main()
"""
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "sonew: stopped\n")
    assert time.monotonic() - started < 15


def test_ctrl_c_while_the_program_is_loaded_is_one_line() -> None:
    program = """
import sys

class Interrupted:
    def find_spec(self, name, *_):
        if name == "sonew_compiled.cli._main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
from sonew_compiled.cli import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "sonew: stopped\n")
