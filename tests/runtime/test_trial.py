"""Foreign code that crashes or hangs does so in a process of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import Bundle, Device, Program, open_bundle, trial
from sonew_compiled.runtime.manifest import Manifest
from sonew_compiled.runtime.trial import remember_made_here, try_apart

Refusal = Callable[..., str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "cache")
    monkeypatch.setattr(trial, "_known", set())
    return tmp_path / "cache" / "known-bundles"


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], list[int]]:
    """Replaces the worker by a script, and returns a list with an entry for each start."""

    def replace(code: str) -> list[int]:
        (tmp_path / "odd_worker.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(trial, "_WORKER", "odd_worker")
        started: list[int] = []
        real = trial._run
        monkeypatch.setattr(trial, "_run", lambda *arguments: started.append(1) or real(*arguments))
        return started

    return replace


def with_executable(bundle: Path, content: bytes) -> Bundle:
    """The bundle with another executable for the processor, and a hash that fits."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "cpu.vmfb").write_bytes(content)
    manifest["files"]["cpu.vmfb"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    manifest["targets"] = manifest["targets"][:1]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return open_bundle(bundle)


def test_a_whole_bundle_is_tried_once(
    bundle_copy: Path, cpu: Device, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(bundle_copy)
    try_apart(bundle, cpu)
    (line,) = cache.read_text().splitlines()
    assert line.split()[1:3] == ["local-sync", "cpu"]
    monkeypatch.setattr(trial, "_run", None)
    try_apart(bundle, cpu)
    monkeypatch.setattr(trial, "_known", set())
    try_apart(bundle, cpu)


def test_code_that_ends_the_process_is_refused(bundle_copy: Path, cpu: Device, refusal: Refusal) -> None:
    """Some instructions are overwritten, as in a damaged transfer; the loader does not notice."""
    content = bytearray((bundle_copy / "cpu.vmfb").read_bytes())
    at = content.index(b"\x7fELF")
    # Most of the library is code, and zeros are padding.
    content[at + 0x1000 : at + 0x3000] = b"\x06" * 0x2000
    bundle = with_executable(bundle_copy, bytes(content))
    message = refusal(SonewError, lambda: try_apart(bundle, cpu))
    assert str(bundle_copy / "cpu.vmfb") in message
    assert "ing it ended a trial process by SIG" in message or "cannot be loaded" in message
    assert "compile the bundle again" in message


def test_what_the_loader_refuses_is_said_by_it(bundle_copy: Path, cpu: Device, refusal: Refusal) -> None:
    bundle = with_executable(bundle_copy, b"nothing of the kind" * 100)
    assert "cannot be loaded on device local-sync" in refusal(SonewError, lambda: try_apart(bundle, cpu))


def test_a_programs_own_load_tries_it_too(
    bundle_copy: Path, cpu: Device, worker: Callable[[str], list[int]], refusal: Refusal
) -> None:
    """Not the command line alone: code that would end this process is refused, unless this process made it."""
    started = worker("import os; print('started', flush=True); os.kill(os.getpid(), 4)")
    bundle = open_bundle(bundle_copy)
    assert "loading it ended a trial process by SIGILL" in refusal(SonewError, lambda: Program.load(bundle, cpu))
    assert len(started) == 1
    assert Program.load(dataclasses.replace(bundle, is_trusted=True), cpu).target.name == "cpu"
    assert len(started) == 1


def test_what_a_manifest_says_of_the_state_takes_no_memory(bundle_copy: Path, cpu: Device, refusal: Refusal) -> None:
    """The state that a trial calls functions on is the one that the code gives, however large it is said to be."""
    text = (bundle_copy / "manifest.json").read_text()
    grown = re.sub(r"(\"shape\": \[\s*)4,\s*4(\s*\])", r"\g<1>200000, 20000\2", text)
    (bundle_copy / "manifest.json").write_text(grown)
    assert grown != text
    message = refusal(SonewError, lambda: try_apart(open_bundle(bundle_copy), cpu))
    assert "of shape [4, 4], the manifest says [200000, 20000]" in message


def test_a_manifest_of_another_executable_is_refused(bundle_copy: Path, cpu: Device, refusal: Refusal) -> None:
    text = (bundle_copy / "manifest.json").read_text()
    functions = json.loads(text)["functions"]
    functions["predict"]["outputs"][0]["shape"] = [4, 8]
    (bundle_copy / "manifest.json").write_text(json.dumps(json.loads(text) | {"functions": functions}))
    message = refusal(SonewError, lambda: try_apart(open_bundle(bundle_copy), cpu))
    assert "gives prediction of shape [8, 4], the manifest says [4, 8]" in message


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('started', flush=True); import time; time.sleep(60)", "loading it did not end within 0.5 s"),
        ("print('started\\nloaded', flush=True); import time; time.sleep(60)", "calling it did not end within 0.5 s"),
        (
            "import os; print('started', flush=True); os.kill(os.getpid(), 11)",
            "loading it ended a trial process by SIGSEGV",
        ),
        (
            "print('started\\nloaded', flush=True); raise SystemExit(3)",
            "calling it ended a trial process with exit code 3",
        ),
        ("print('started\\nnoise', flush=True)", "loading it ended a trial process with exit code 0"),
        ("print('refused one\\x1b line')", "one\\x1b line"),
    ],
)
def test_ends_of_a_trial(
    tiny_bundle: Path,
    cpu: Device,
    worker: Callable[[str], list[int]],
    code: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Refusal,
) -> None:
    monkeypatch.setattr(trial, "_MOST", 0.5)
    worker(code)
    started = time.perf_counter()
    assert said in refusal(SonewError, lambda: try_apart(open_bundle(tiny_bundle), cpu))
    assert time.perf_counter() - started < 30


def test_what_was_made_here_is_not_tried(
    tiny_bundle: Path, cpu: Device, worker: Callable[[str], list[int]], cache: Path
) -> None:
    bundle = open_bundle(tiny_bundle)
    started = worker("print('called')")
    remember_made_here(bundle.manifest)
    try_apart(bundle, cpu)
    assert not started
    other = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, model="another"))
    try_apart(other, cpu)
    assert started
    assert Manifest.from_json(other.manifest.to_json(), source="").to_json() == other.manifest.to_json()


def test_where_nothing_can_be_started_or_noted(
    tiny_bundle: Path, cpu: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def homeless(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("platformdirs.user_cache_path", homeless)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    try_apart(open_bundle(tiny_bundle), cpu)
    assert "could not be tried apart (No such file or directory)" in caplog.text


def test_the_list_of_what_is_known_does_not_grow_for_ever(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_MOST_KNOWN", 4)
    for index in range(9):
        trial._remember(f"line {index}")
    assert cache.read_text().splitlines() == ["line 6", "line 7", "line 8"]
