"""Unusual environments: closed streams, no home folder, other users' files, a fork, a notebook's settings."""

from __future__ import annotations

import json
import multiprocessing
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import Program, TrainingState, open_bundle, open_device, read_metrics

Run = Callable[..., Any]


@pytest.fixture
def shell(small: Any, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a line of shell, with `$SONEW`, `$BUNDLE` and `$DATA`, in a new folder."""
    names = {"SONEW": Path(sys.executable).parent / "sonew", "BUNDLE": small.bundle, "DATA": small.data}

    def run(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **{key: shlex.quote(str(path)) for key, path in names.items()}, **environment}
        return subprocess.run(["sh", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "2>&- >&-"])
def test_a_closed_stream_changes_nothing(shell: Run, tmp_path: Path, closed: str) -> None:
    assert shell(f"$SONEW run $BUNDLE --data $DATA --epochs 1 -o run {closed}").returncode == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 1
    inspected = shell(f"$SONEW inspect $BUNDLE {closed}")
    assert (inspected.returncode, inspected.stderr) == (0, "")


@pytest.mark.parametrize("stderr", ["2>&1 | head -n 1", "2>/dev/full", "2>&1 >/dev/full | true"])
def test_training_goes_on_when_nobody_reads_of_it(shell: Run, tmp_path: Path, stderr: str) -> None:
    shell(f"$SONEW run $BUNDLE --data $DATA --epochs 40 -o run {stderr}")
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 40
    assert (tmp_path / "run" / "step-00000360.safetensors").exists()
    assert not list((tmp_path / "run").glob(".*"))


def test_paths_of_any_bytes(shell: Run, small: Any, tmp_path: Path) -> None:
    """Quotes, line breaks and bytes that are no UTF-8; the command that goes on with a run works in a shell."""
    folder = tmp_path / os.fsdecode(b"a \"b'$x\n\xff")
    folder.mkdir()
    shutil.copytree(small.bundle, folder / "-bundle")
    shutil.copy(small.data, folder / "da ta.npz")
    common = 'cd "$(echo a*)" && PYTHONIOENCODING=utf-8:strict'
    stopped = shell(f'{common} $SONEW run "$PWD/-bundle" --data "$PWD/da ta.npz" --epochs 3 --max-steps 12 -o "$PWD/r"')
    assert stopped.returncode == 0, stopped.stderr
    (line,) = (
        line for line in stopped.stderr.splitlines() if line.startswith("stopped after --max-steps 12; go on with")
    )
    command = line.partition("go on with: sonew ")[2]
    resumed = shell(f"cd /; bash -c {shlex.quote(f'$SONEW {command}')}")
    assert resumed.returncode == 0, resumed.stderr
    assert len(resumed.stderr.splitlines()) == 2, resumed.stderr
    assert len(resumed.stdout.splitlines()) == 1, resumed.stdout
    assert len(read_metrics(folder / "r")) == 3
    for line, code, said in (
        ('eval --checkpoint "$PWD/r" --data "$PWD/da ta.npz" -- -bundle', 0, 0),
        ('inspect "$PWD/-bundle"', 0, 0),
        ('plot "$PWD/r" -o "$PWD/l.png"', 0, 1),
        ('inspect "$PWD/none"', 2, 1),
    ):
        ended = shell(f"{common} $SONEW {line}")
        assert (ended.returncode, len(ended.stderr.splitlines())) == (code, said), ended.stderr


def test_output_that_nobody_takes(shell: Run) -> None:
    ended = shell("{ $SONEW inspect $BUNDLE --json; echo $? >&2; } | true")
    assert ended.stderr == "1\n"
    full = shell("$SONEW inspect $BUNDLE --json >/dev/full")
    assert (full.returncode, full.stderr.count("\n")) == (1, 1)
    assert "cannot read or write the output (No space left on device)" in full.stderr


@pytest.mark.parametrize(
    ("variable", "command", "said"),
    [
        (None, "data fetch", "this user has no home folder to keep the data in; set SONEW_DATA, or give --data-dir"),
        (None, "data verify --data mnist", "is not in a folder known here"),
        (
            "~nobody-here/x",
            "data verify --data mnist",
            "is '~nobody-here/x', and there is no such user here",
        ),
        ("~/x", "data verify --data mnist", "set it to a full path"),
    ],
)
def test_a_user_without_a_home(
    sonew: Run, monkeypatch: pytest.MonkeyPatch, variable: str | None, command: str, said: str
) -> None:
    """A container may run as a number: there is no HOME and no entry in /etc/passwd."""

    def unknown(_: object) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME", "SONEW_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    if variable:
        monkeypatch.setenv("SONEW_DATA", variable)
    result = sonew(*command.split())
    assert result.code == 1
    assert said in result.err
    assert result.err.count("\n") == 1


def test_what_was_loaded_stays_when_the_file_changes(bundle_copy: Path, cpu: Any) -> None:
    """If the file were mapped, truncating it would end the process with SIGBUS."""
    program = Program.load(open_bundle(bundle_copy), cpu)
    (bundle_copy / program.target.file).write_bytes(b"")
    state = TrainingState.initial(program, seed=0)
    assert state.download().keys() == {spec.name for spec in program.manifest.state}


def _in_the_child(bundle: Path, found: Any, inherited: TrainingState) -> None:
    try:
        inherited.download()
    except SonewError as error:
        found.put(str(error))
    program = Program.load(open_bundle(bundle), open_device("local-task"))
    found.put(TrainingState.initial(program, seed=0).parameters())


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_a_forked_child_opens_a_device_of_its_own(small: Any) -> None:
    program = Program.load(open_bundle(small.bundle), open_device("local-task"))
    state = TrainingState.initial(program, seed=0)
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    child = context.Process(target=_in_the_child, args=(small.bundle, found, state))
    child.start()
    try:
        refused, parameters = found.get(timeout=60), found.get(timeout=60)
    finally:
        child.kill()
        child.join()
    assert "local-task was opened before this process was forked" in refused
    assert "open it again in the child" in refused
    for name, array in state.parameters().items():
        np.testing.assert_array_equal(parameters[name], array)


def _metrics(folder: Path, *losses: float) -> None:
    folder.mkdir(parents=True)
    rows = [{"step": n, "epoch": n, "loss": loss, "learning_rate": 0.1} for n, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def coloured(picture: Path) -> int:
    """The number of coloured pixels within the axes, left of the legend's text."""
    with Image.open(picture) as image:
        hue = np.asarray(image.convert("RGB")).astype(int)[:, 90:700]
    return int(((hue.max(-1) - hue.min(-1)) > 60).sum())


@pytest.mark.parametrize("losses", [(3.0,), (-3.0, -4.0), (0.0, 1.0)], ids=str)
def test_every_curve_is_drawn(sonew_apart: Run, tmp_path: Path, losses: tuple[float, ...]) -> None:
    _metrics(tmp_path / "run", *losses)
    backend = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    result = sonew_apart("plot", "run", "-o", "loss.png", cwd=tmp_path, env=backend)
    assert (result.code, result.err) == (0, "wrote loss.png\n")
    assert coloured(tmp_path / "loss.png") > 900


def test_every_curve_has_its_name(sonew_apart: Run, tmp_path: Path) -> None:
    folders = ("_first", "lr$x_$", "a/same", "b/same", "\u8bad\u7ec3", os.fsdecode(b"n\xe9"))
    for name in folders:
        _metrics(tmp_path / name, 3, 2)
    result = sonew_apart("plot", *folders, "-o", "loss.svg", cwd=tmp_path)
    assert (result.code, result.err) == (0, "wrote loss.svg\n")
    # matplotlib writes each text of an SVG as a comment beside its shape.
    drawn = re.sub(r"[\\\s]+", "", (tmp_path / "loss.svg").read_text())
    # matplotlib's font has no Chinese, and no font has what is not UTF-8.
    for name in (*folders[:4], "u8badu7ec3", "nudce9"):
        assert f"<!--{name}(2.00)-->" in drawn


def test_a_full_disk_leaves_the_older_picture(sonew: Run, full_disk: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    _metrics(tmp_path / "run", 3, 2)
    assert sonew("plot", "run").code == 0
    before = Path("loss.png").read_bytes()
    with full_disk(after=1000):
        result = sonew("plot", "run")
    assert result.code == 1
    assert result.err.startswith("sonew: loss.png cannot be written")
    assert Path("loss.png").read_bytes() == before
