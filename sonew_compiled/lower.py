"""StableHLO to IREE executables."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sonew_compiled.errors import SonewError
from sonew_compiled.targets import Target, iree_compile

# The errors are cut to this many characters: the compiler prints whole function signatures.
_LONGEST_ERROR = 240


def lower(stablehlo: bytes, target: Target, *, what: str) -> bytes:
    """Compiles a StableHLO portable artifact, or MLIR text, for one target.

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
        command = [
            iree_compile(),
            str(source),
            "--iree-input-type=stablehlo",
            *target.flags,
            "-o",
            str(result),
        ]
        process = subprocess.run(command, capture_output=True, check=False, cwd=scratch)
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
        f"  try another target (`sonew targets` lists them) or another optimizer; the compiler's log is {log.name}"
    )


def first_error(log: str, returncode: int) -> str:
    """The first real error of a compiler's log, in one short line: the operation and the message, no signature."""
    for line in _error_lines(log):
        message = re.sub(r"\s+", " ", line).strip()
        message = re.sub(r"(<|\()[^<>()]{200,}(>|\))", r"\1...\2", message)
        return message if len(message) <= _LONGEST_ERROR else message[:_LONGEST_ERROR] + " ..."
    return f"iree-compile ended with exit code {returncode} and no error message"


def _error_lines(log: str) -> Iterator[str]:
    # "failed to run translation" and the like only say that an inner error happened.
    outer = ("failed to run translation", "failed to serialize", "failed to run pass pipeline")
    lines = [line.partition("error: ")[2] for line in log.splitlines() if "error: " in line]
    yield from (line for line in lines if not any(phrase in line for phrase in outer))
    yield from lines
