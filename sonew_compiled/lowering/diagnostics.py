"""The error of a compiler in one line for the user, with the whole log in a file."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sonew_compiled.errors import SonewError
from sonew_compiled.lowering.scratch import is_full, no_space
from sonew_compiled.lowering.targets import Target

# Errors are cut to this many characters, because the compiler prints whole function signatures.
_LONGEST_ERROR = 240

# These errors only say that an inner error happened.
_OUTER_ERRORS = ("failed to run translation", "failed to serialize", "failed to run pass pipeline", "failed to link")

_OUT_OF_MEMORY = re.compile(r"out of memory|bad_alloc|RESOURCE_EXHAUSTED|Cannot allocate memory", re.IGNORECASE)

# A kernel in an operation of the log, or in the place of an error.
_KERNEL = re.compile(r"(?:sym_name = \"|on function '@)(\w+_dispatch_\w+)")

# The fatal log line with which libtpu ends its process: severity, date, time, thread, place.
_FATAL = re.compile(r"F\d{4} [\d:.]+ +\d+ \S+\] (.+)")


def compile_error(
    *,
    compiler: str,
    process: subprocess.CompletedProcess[bytes],
    before: subprocess.CompletedProcess[bytes] | None = None,
    folder: Path,
    target: Target,
    what: str,
) -> SonewError:
    """The error of a compiler that ended without a result.

    Args:
      compiler: its name in the message.
      process: its command, and its output on stderr.
      before: those of an earlier try with other flags, if there was one.
      folder: its working directory.
      target: the target that it compiled for.
      what: names the module, such as `autoencoder with tridiag-sonew`.

    Returns:
      An error with the module, the first real error of each try, a remedy, and a file, written here, with the commands
      and the whole logs; if the disk is full, an error that says so.
    """
    if is_full(folder):
        return no_space(folder.parent)
    tries = [process] if before is None or before.returncode == 0 else [before, process]
    logs = [each.stderr.decode(errors="replace") for each in tries]
    with tempfile.NamedTemporaryFile(
        "w", prefix="sonew-compile-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        file.write("\n".join(" ".join(each.args) + "\n" + log for each, log in zip(tries, logs, strict=True)))
    errors = {
        first_error(log, each.returncode, compiler=compiler, longest=_LONGEST_ERROR // len(tries)): None
        for each, log in zip(tries, logs, strict=True)
    }
    return SonewError(
        f"cannot compile {what} for target {target.name}: {'; with other flags: '.join(errors)}; "
        f"{_remedy(logs[-1], process.returncode)}; the compiler's log is {file.name}"
    )


def first_error(log: str, returncode: int, *, compiler: str, longest: int = _LONGEST_ERROR) -> str:
    """The first real error of a compiler's log as one short line: the operation and the message."""
    crash = _crash(returncode, compiler)
    found = next(_error_lines(log, compiler), "")
    if not found:
        return crash or f"{compiler} ended with exit code {returncode} and no error message"
    return (f"{crash}: " if crash else "") + _shortened(found + _place(log, found), longest)


def _error_lines(log: str, compiler: str) -> Iterator[str]:
    lines = log.splitlines()
    errors = [line.partition("error: ")[2] for line in lines if "error: " in line]
    yield from (line for line in errors if not any(phrase in line for phrase in _OUTER_ERRORS))
    yield from (line.partition("LLVM ERROR: ")[2] for line in lines if "LLVM ERROR: " in line)
    yield from (line for line in lines if "Assertion `" in line or "terminate called after" in line)
    yield from (match[1] for match in map(_FATAL.match, lines) if match)
    yield from errors
    yield from (line for line in lines if line.startswith(f"{compiler}: "))


def _place(log: str, error: str) -> str:
    """The kernel in which an error arose, if its message does not name it: ` (in train_step_dispatch_3_...)`.

    Where the operation that the log shows has several kernels, it says nothing of the one.
    """
    if "_dispatch_" in error:
        return ""
    for shown in log[log.find(error) :].split("error: "):
        if kernels := set(_KERNEL.findall(shown)):
            return f" (in {kernels.pop()})" if len(kernels) == 1 else ""
    return ""


def _shortened(message: str, longest: int) -> str:
    """The message on one line, without long attributes and types."""
    message = re.sub(r"\s+", " ", message).strip()
    message = re.sub(r"<\{[^{}]{60,}\}>|\s+Try: .*", "", message)  # an operation's attributes; the compiler's own path
    message = re.sub(r"(<|\()[^<>()]{100,}(>|\))", r"\1...\2", message)
    if len(message) <= longest:
        return message
    head, separator, place = message.rpartition(" (in ")
    if not separator or len(place) > longest // 2:
        head, place = message, ""
    return head[: longest - len(separator + place)].rstrip() + " ..." + separator + place


def _crash(returncode: int, compiler: str) -> str:
    """The signal that ended the compiler, in words; empty if it ended by itself."""
    if returncode >= 0:
        return ""
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"{compiler} {'was killed' if returncode == -signal.SIGKILL else 'crashed'} ({name})"


def _remedy(log: str, returncode: int) -> str:
    if returncode == -signal.SIGKILL or _OUT_OF_MEMORY.search(log):
        return "free memory, or compile on a machine that has more"
    return "try another target (`sonew targets` lists them) or another optimizer"
