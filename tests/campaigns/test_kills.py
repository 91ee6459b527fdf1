"""Runs that are killed at a change to the file system or at a random time, and then resumed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaigns import compiling
from campaigns.conduct import PATIENCE, check_end, seeds

Run = Callable[..., Any]

KILLER = Path(__file__).with_name("killer.py")
# A new run, one that resumes it up to seven epochs, and one that replaces it.
COMMON = ("--data", "data.npz")
COMMANDS: dict[str, tuple[object, ...]] = {
    "fresh": ("run", "small.bundle", *COMMON, "--epochs", 6, "-o", "fresh"),
    "resumed": ("run", "small.bundle", *COMMON, "--resume", "run", "--epochs", 7),
    "replaced": ("run", "small.bundle", *COMMON, "--epochs", 5, "--seed", 3, "-o", "run", "--overwrite"),
}
FOLDERS = {"fresh": Path("fresh"), "resumed": Path("run"), "replaced": Path("run")}
AGAIN = {"fresh": ("--epochs", 6), "resumed": ("--epochs", 7), "replaced": ()}


def state_of(folder: Path) -> tuple[str, bytes, list[tuple[float, float]]]:
    """The last checkpoint by name and content, and the metrics without times."""
    last = max(folder.glob("step-*.safetensors"))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return last.name, last.read_bytes(), [(row["step"], row["loss"]) for row in rows]


def started(*command: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, KILLER, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def whole(place: Path, restored: Callable[[], None]) -> dict[str, tuple[int, list[Any], float]]:
    """For each command: its changes to the file system, the valid states, and its seconds."""
    found = {}
    for name, command in COMMANDS.items():
        before = [] if name == "fresh" else [state_of(FOLDERS[name])]
        begun = time.perf_counter()
        process = started(-1, *command)
        _, err = process.communicate()
        check_end(process.returncode, err, name)
        seconds = time.perf_counter() - begun
        found[name] = (int(Path("moments").read_text()), [*before, state_of(FOLDERS[name])], seconds)
        restored()
    return found


def goes_on(name: str, sonew: Run, whole: list[Any], what: str) -> None:
    """Resumes the files of a killed process, or starts again; the end must be that of a run that was not killed."""
    folder = FOLDERS[name]
    if list(folder.glob("step-*.safetensors")) or (folder / ".replacing").exists():
        result = sonew("run", "small.bundle", "--resume", folder, *COMMON, *AGAIN[name])
    else:
        result = sonew(*COMMANDS[name])
    check_end(result.code, result.err, what)
    assert result.code == 0, f"{what} cannot be gone on with: {result.err}"
    # A replacement may not have happened yet; the old run is then whole.
    assert state_of(folder) in (whole if name == "replaced" else whole[-1:]), what
    left = {path.name.partition("-")[0] for path in folder.iterdir()}
    assert left == {"metrics.jsonl", "step"}, f"{what} leaves {left}"


def test_kills_at_changes_of_files(
    sonew: Run, restored: Callable[[], None], whole: dict[str, tuple[int, list[Any], float]], log: Callable[[str], None]
) -> None:
    for seed in seeds(6):
        rng = random.Random(seed)
        name = list(COMMANDS)[seed % 3]
        moments, states, _ = whole[name]
        moment = rng.randrange(moments)
        process = started(moment, *COMMANDS[name])
        process.communicate()
        log(f"seed {seed}: {name} at change {moment} of {moments}: {process.returncode}")
        assert process.returncode == -signal.SIGKILL
        goes_on(name, sonew, states, f"seed {seed}: {name} at change {moment}")
        restored()


def test_kills_and_signals_after_any_time(
    sonew: Run, restored: Callable[[], None], whole: dict[str, tuple[int, list[Any], float]], log: Callable[[str], None]
) -> None:
    for seed in seeds(1):
        rng = random.Random(seed)
        name = rng.choice(list(COMMANDS))
        _, states, seconds = whole[name]
        number = rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        process = started(-1, *COMMANDS[name])
        wait = rng.uniform(0, 1.1 * seconds)
        time.sleep(wait)
        process.send_signal(number)
        _, err = process.communicate(timeout=6 * PATIENCE)
        log(f"seed {seed}: {name}, {number.name} after {wait:.2f} of {seconds:.2f} s: {process.returncode}")
        Path("moments").unlink(missing_ok=True)
        # Until Python is ready, the default action of a signal ends the process.
        if process.returncode not in (-signal.SIGKILL, -number) and "Traceback" not in err:
            check_end(process.returncode, err, f"seed {seed}")
        goes_on(name, sonew, states, f"seed {seed}: {name}, {number.name} after {wait:.2f} s")
        restored()


def test_kills_of_what_compiles(
    sonew: Run, place: Path, restored: Callable[[], None], temporary: Path, log: Callable[[str], None]
) -> None:
    """`compile`, `tune` and `bench` killed at any time, or at a change of files, and begun again."""
    for seed in seeds(1):
        rng = random.Random(seed)
        name = list(compiling.COMMANDS)[seed % 3]
        longest = (1.2 if name == "bench" else 0.6) * PATIENCE
        moment, wait = rng.choice(((rng.randrange(40), 6 * PATIENCE), (-1, rng.uniform(0.1, longest))))
        number = rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        process = started(moment, *compiling.COMMANDS[name])
        try:
            _, err = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            _, err = process.communicate(timeout=6 * PATIENCE)
        what = f"seed {seed}: {name}, change {moment} or {number.name} after {wait:.2f} s"
        log(f"{what}: {process.returncode}: {err[-100:].strip()}")
        # Before Python is ready the default of a signal ends the process.
        if process.returncode not in (-signal.SIGKILL, -number) and "Traceback" not in err:
            check_end(process.returncode, err, what)
        Path("moments").unlink(missing_ok=True)
        result = sonew(*compiling.COMMANDS[name])
        assert result.code == 0, f"{what}, then {result.err}"
        compiling.IS_DONE[name]()
        end_orphans(temporary)
        # Python's `tempfile` tries whether a folder can be written to by a file of four bytes.
        left = [path for path in temporary.iterdir() if not (path.is_file() and path.read_bytes() in (b"", b"blat"))]
        assert left == [], what
        assert not list(place.glob(".*")), what
        restored()


def end_orphans(temporary: Path) -> None:
    """Ends what a killed process had started; it has our folder for temporary files, or one in it."""
    mark = f"TMPDIR={temporary}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(process.name) != os.getpid() and mark in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def test_a_killed_replacement_of_a_bundle(tiny_bundle: Path, place: Path) -> None:
    """`-o` over an older bundle, killed at a change: one of the two bundles is whole, and the next call cleans up."""
    from sonew_compiled import bundle_writer
    from sonew_compiled.runtime import open_bundle

    code = (
        "import sys, json, os, signal; from pathlib import Path\n"
        "from sonew_compiled.bundle_writer import write_bundle\n"
        "moment, new, to = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])\n"
        "files = {p.name: p.read_bytes() for p in new.iterdir()}; text = files.pop('manifest.json').decode()\n"
        "count = 0\n"
        "def hook(event, arguments):\n"
        "    global count\n"
        "    writes = event == 'open' and isinstance(arguments[1], str) and set(arguments[1]) & set('wax+')\n"
        "    if writes or event in ('os.rename', 'os.remove', 'os.rmdir', 'os.mkdir', 'ctypes.call_function'):\n"
        "        if count == moment: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        count += 1\n"
        "sys.addaudithook(hook); write_bundle(to, files, text); print(count)\n"
    )

    def write(moment: int, to: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(moment), str(tiny_bundle), str(to)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    shutil.copytree("small.bundle", "out/new.bundle")
    moments = int(write(-1, Path("out/new.bundle")).stdout)
    assert moments > 5
    for moment in range(moments) if "SONEW_CAMPAIGN" in os.environ else (moments // 2, moments - 2):
        shutil.rmtree("out")
        shutil.copytree("small.bundle", "out/new.bundle")
        assert write(moment, Path("out/new.bundle")).returncode == -signal.SIGKILL
        open_bundle("out/new.bundle").verify()
        bundle_writer.write_bundle(Path("out/new.bundle"), {}, '{"format_version": 1, "files": {}}')
        assert [path.name for path in Path("out").iterdir()] == ["new.bundle"]
