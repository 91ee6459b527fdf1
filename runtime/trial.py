"""Code that was not compiled on this machine is tried in a process of its own before it is loaded into this one.

A bundle's executables are native code, and IREE's loader trusts them: a damaged file with a fitting hash can crash or
hang the process that loads or calls it. A trial turns that into one line. It does not protect from a malicious author;
see docs/concepts/security.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import platformdirs

from sonew_compiled.errors import SonewError, on_one_line
from sonew_compiled.runtime.bundle import Bundle, choose_target
from sonew_compiled.runtime.device import Device
from sonew_compiled.runtime.manifest import Manifest
from sonew_compiled.runtime.versions import runtime_version

logger = logging.getLogger("sonew_compiled")

_WORKER = "sonew_compiled.runtime._trial_worker"
# Seconds for Python to start, which depends on the machine alone.
_START = 60.0
# Seconds for loading the code and calling each function once: the least, more for large code and tensors, and the most.
# A software Vulkan driver takes several on an idle machine, since it compiles each dispatch when it is first called.
_LEAST, _BYTES_A_SECOND, _MOST = 30.0, 5e7, 60.0
_STAGES = ("", "started", "loaded")
_KNOWN_FILE = "known-bundles"
# The most lines of that file; beyond them the older half is removed.
_MOST_KNOWN = 10_000

_known: set[str] = set()


def remember_made_here(manifest: Manifest) -> None:
    """Notes in the user's cache that this machine made the bundle, so that it need not be tried."""
    _remember(_key(manifest))


def try_apart(bundle: Bundle, device: Device) -> None:
    """Loads the code for a device in a process of its own, and calls each function once on zeros.

    Does nothing if this machine made the bundle, or has tried it before, or if a trusted key has signed it.

    Raises:
      SonewError: the bundle has no code for the device, or the code is refused, ends the process, or hangs.
    """
    if bundle.is_trusted:
        return
    made = _key(bundle.manifest)
    target = choose_target(bundle, device.name, device.driver, device.description)
    tried = f"{made} {device.name} {target.name} {runtime_version()}"
    if made in _known or tried in _known or {made, tried} & _read_known():
        return
    code = bundle.read(target.file)
    tensors = [spec for each in bundle.manifest.functions.values() for spec in (*each.inputs, *each.outputs)]
    size = len(code) + sum(spec.nbytes for spec in tensors)
    problem = _run(bundle.path, device.name, min(_LEAST + size / _BYTES_A_SECOND, _MOST))
    if problem is not None:
        raise SonewError(
            f"{bundle.path / target.file} cannot be used on device {device.name}: {problem}; compile the bundle again "
            "with `sonew compile`"
        )
    _remember(tried)


def _run(bundle: Path, device: str, seconds: float) -> str | None:
    """The fault of the code in words; None if there is none.

    Args:
      bundle: the bundle's directory.
      device: the device's name.
      seconds: the time limit for loading the code, and for calling it.

    Raises:
      SonewError: the trial was refused.
    """
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _WORKER, os.path.abspath(bundle), device],  # noqa: PTH100 - links stay
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
    except OSError as error:
        _say_untried(str(error.strerror))
        return None
    is_late = threading.Event()

    def stop() -> None:
        is_late.set()
        process.kill()

    reached, said = "", process.stdout
    assert said is not None
    timer = threading.Timer(_START, stop)
    timer.start()
    try:
        while True:
            line = said.readline().rstrip("\n")
            if not reached:
                timer.cancel()
                timer = threading.Timer(seconds, stop)
                timer.start()
            if line.startswith("refused "):
                raise SonewError(on_one_line(line.removeprefix("refused ")))
            if line == "called":
                return None
            if line not in _STAGES[1:]:
                return _failure(process.wait(), reached, seconds if is_late.is_set() else None)
            reached = line
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        said.close()


def _failure(code: int, reached: str, late_after: float | None) -> str | None:
    doing = "loading it" if reached == "started" else "calling it"
    if not reached:
        _say_untried(f"Python ended with {code}")
        return None
    if late_after is not None:
        return f"{doing} did not end within {late_after:.3g} s in a trial"
    with contextlib.suppress(ValueError):
        return f"{doing} ended a trial process by {signal.Signals(-code).name}"
    return f"{doing} ended a trial process with exit code {code}"


def _say_untried(why: str) -> None:
    logger.warning("the bundle was not made on this machine, and could not be tried apart (%s)", why)


def _key(manifest: Manifest) -> str:
    """A key of the bundle and all of its files, whose hashes are in the manifest."""
    return hashlib.sha256(manifest.to_json().encode(errors="surrogatepass")).hexdigest()


def _known_file() -> Path | None:
    try:
        return platformdirs.user_cache_path("sonew-compiled") / _KNOWN_FILE
    except (RuntimeError, KeyError):  # nobody knows where this user's home is
        return None


def _read_known() -> set[str]:
    path = _known_file()
    try:
        return set() if path is None else set(path.read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return set()


def _remember(line: str) -> None:
    """Adds a line for this process and, if there is a cache, for later ones."""
    _known.add(line)
    path = _known_file()
    if path is None or line in _read_known():
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if len(lines) > _MOST_KNOWN:
            path.write_text("\n".join(lines[_MOST_KNOWN // 2 :]) + "\n", encoding="utf-8")
