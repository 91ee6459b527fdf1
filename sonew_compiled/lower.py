"""StableHLO to IREE executables."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sonew_compiled.errors import SonewError
from sonew_compiled.targets import Target, iree_compile

# The errors are cut to this many characters: the compiler prints whole function signatures.
_LONGEST_ERROR = 240

# "failed to run translation" and the like only say that an inner error happened.
_OUTER_ERRORS = ("failed to run translation", "failed to serialize", "failed to run pass pipeline", "failed to link")

_OUT_OF_MEMORY = re.compile(r"out of memory|bad_alloc|RESOURCE_EXHAUSTED|Cannot allocate memory", re.IGNORECASE)


def lower(stablehlo: bytes, target: Target, *, what: str) -> bytes:
    """Compiles a StableHLO portable artifact, or MLIR text, for one target of IREE.

    Args:
      stablehlo: the module.
      target: what to compile for.
      what: names the module in errors, such as `autoencoder with tridiag-sonew`.

    Returns:
      The bytes of the `.vmfb`; the same input and compiler give the same bytes.

    Raises:
      SonewError: the compiler refused it. Three lines: what was being compiled, the first real error, what to try;
        the whole log is in a file that the last line names.
    """
    with tempfile.TemporaryDirectory(prefix="sonew-") as scratch:
        source, result = Path(scratch, "module.mlir"), Path(scratch, "module.vmfb")
        source.write_bytes(stablehlo)
        command = [iree_compile(), str(source), "--iree-input-type=stablehlo", *target.flags, "-o", str(result)]
        # A crash is reported at once: naming the functions of the backtrace takes half a minute and is of no use to us.
        environment = os.environ | {"TMPDIR": scratch, "LLVM_DISABLE_SYMBOLIZATION": "1"}
        try:
            process = subprocess.run(command, capture_output=True, check=False, cwd=scratch, env=environment)
            if process.returncode and target.fallback_flags:
                command += target.fallback_flags
                process = subprocess.run(command, capture_output=True, check=False, cwd=scratch, env=environment)
        except OSError as error:
            raise SonewError(
                f"cannot compile {what} for target {target.name}: {command[0]} does not start ({error.strerror}); "
                "install iree-base-compiler again"
            ) from None
        if process.returncode == 0:
            return result.read_bytes()
    log_text = process.stderr.decode(errors="replace")
    with tempfile.NamedTemporaryFile(
        "w", prefix="sonew-compile-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write(" ".join(command) + "\n" + log_text)
    raise SonewError(
        f"cannot compile {what} for target {target.name}\n"
        f"  {first_error(log_text, process.returncode)}\n"
        f"  {_remedy(log_text, process.returncode)}; the compiler's log is {log.name}"
    )


def first_error(log: str, returncode: int) -> str:
    """The first real error of a compiler's log, in one short line: the operation and the message, no signature."""
    crash = _crash(returncode)
    found = next(_error_lines(log), "")
    if not found:
        return crash or f"iree-compile ended with exit code {returncode} and no error message"
    return (f"{crash}: " if crash else "") + _shortened(found + _place(log, found))


def _error_lines(log: str) -> Iterator[str]:
    lines = log.splitlines()
    errors = [line.partition("error: ")[2] for line in lines if "error: " in line]
    yield from (line for line in errors if not any(phrase in line for phrase in _OUTER_ERRORS))
    yield from (line.partition("LLVM ERROR: ")[2] for line in lines if "LLVM ERROR: " in line)
    yield from (line for line in lines if "Assertion `" in line or "terminate called after" in line)
    yield from errors
    yield from (line for line in lines if line.startswith("iree-compile: "))


def _place(log: str, error: str) -> str:
    """Which kernel an error is about, where its message does not say: ` (in train_step_dispatch_3_...)`."""
    tail = log[log.find(error) :]
    kernel = re.search(r"sym_name = \"(\w+_dispatch_\w+)\"|on function '@(\w+_dispatch_\w+)'", tail)
    if kernel is None or "_dispatch_" in error:
        return ""
    return f" (in {kernel[1] or kernel[2]})"


def _shortened(message: str) -> str:
    """One line without the attributes and types that fill it."""
    message = re.sub(r"\s+", " ", message).strip()
    message = re.sub(r"<\{[^{}]{60,}\}>|\s+Try: .*", "", message)  # an operation's attributes; the compiler's own path
    message = re.sub(r"(<|\()[^<>()]{100,}(>|\))", r"\1...\2", message)
    if len(message) <= _LONGEST_ERROR:
        return message
    head, separator, place = message.rpartition(" (in ")
    if not separator or len(place) > _LONGEST_ERROR // 2:
        head, place = message, ""
    return head[: _LONGEST_ERROR - len(separator + place)].rstrip() + " ..." + separator + place


def _crash(returncode: int) -> str:
    """How the compiler died of a signal; empty if it ended by itself."""
    if returncode >= 0:
        return ""
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return f"iree-compile {'was killed' if returncode == -signal.SIGKILL else 'crashed'} ({name})"


def _remedy(log: str, returncode: int) -> str:
    if returncode == -signal.SIGKILL or _OUT_OF_MEMORY.search(log):
        return "free memory, or compile on a machine that has more"
    return "try another target (`sonew targets` lists them) or another optimizer"
