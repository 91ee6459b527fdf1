"""The stand-in for `iree-compile` of the tests gives what the compiler gives, and keeps no failure."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from plugins import compile_once

# It notes that it ran, says something on both streams, and makes a file and a folder of its input.
COMPILER = """
echo "$*" >> runs
cat "$1" > out.vmfb
mkdir -p generated
echo dumped > generated/dispatch.mlir
echo said
echo complained >&2
"""
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
OPTIONS = ("-o", "out.vmfb", "--iree-hal-dump-executable-configurations-to=generated")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the stand-in for a script, in a folder with the input `module.mlir`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    Path("module.mlir").write_text("a module")
    main = Path(compile_once.__file__).with_name("compile_once_main.py")

    def called(script: str, *words: str) -> "subprocess.CompletedProcess[bytes]":
        compiler = tmp_path / "compiler"
        compiler.write_text(f"#!/bin/sh\n{script}")
        compiler.chmod(0o755)
        command = [sys.executable, "-ISE", main, compiler, tmp_path / "kept", *words]
        return subprocess.run([str(each) for each in command], capture_output=True, check=False)

    return called


def test_what_was_made_is_given_again(run: Run) -> None:
    first = run(COMPILER, "module.mlir", *OPTIONS)
    made = Path("out.vmfb"), Path("generated/dispatch.mlir")
    assert (first.returncode, first.stdout, first.stderr) == (0, b"said\n", b"complained\n")
    assert [path.read_text() for path in made] == ["a module", "dumped\n"]
    for path in made:
        path.unlink()
    again = run(COMPILER, "module.mlir", *OPTIONS)
    assert (again.returncode, again.stdout, again.stderr) == (0, b"said\n", b"complained\n")
    assert [path.read_text() for path in made] == ["a module", "dumped\n"]
    assert Path("runs").read_text() == shlex.join(["module.mlir", *OPTIONS, "--mlir-disable-threading"]) + "\n"


def test_another_input_and_other_options_are_compiled(run: Run) -> None:
    run(COMPILER, "module.mlir", *OPTIONS)
    Path("module.mlir").write_text("another module")
    run(COMPILER, "module.mlir", *OPTIONS)
    assert Path("out.vmfb").read_text() == "another module"
    run(COMPILER, "module.mlir", *OPTIONS, "--iree-opt-level=O0")
    assert Path("runs").read_text().count("\n") == 3


@pytest.mark.parametrize(("end", "code"), [("exit 3", 3), ("kill -SEGV $$", -11)])
def test_a_failure_is_passed_on_and_not_kept(run: Run, end: str, code: int) -> None:
    assert run(COMPILER + end, "module.mlir", *OPTIONS).returncode == code
    assert run(COMPILER + end, "module.mlir", *OPTIONS).returncode == code
    assert run(COMPILER, "module.mlir", *OPTIONS).returncode == 0
    assert Path("runs").read_text().count("\n") == 3
