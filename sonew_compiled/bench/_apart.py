"""Tasks in processes of their own, so that peak memory is the task's and a crash ends nothing else."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from sonew_compiled.errors import SonewError
from sonew_compiled.lowering.process import run_to_end
from sonew_compiled.lowering.scratch import scratch_folder

_LONGEST_REASON = 300


class RunError(SonewError):
    """A task failed; the message is one line."""


def call_apart(task: str, **request: Any) -> dict[str, Any]:
    """Calls a function in a new process.

    Args:
      task: `module:function` of this package, whose arguments and result are JSON values.
      request: its arguments.

    Returns:
      Its result.

    Raises:
      RunError: the function raised, or the process died.
    """
    with scratch_folder() as scratch:
        asked, answered, log = (scratch / name for name in ("request.json", "result.json", "log"))
        asked.write_text(json.dumps({"task": task, "arguments": request}), encoding="utf-8")
        command = [sys.executable, "-m", "sonew_compiled.bench._worker", str(asked), str(answered)]
        with log.open("wb") as stream:
            # Files that a killed task leaves behind are removed with this folder.
            environment = os.environ | {"TMPDIR": str(scratch)}
            code = run_to_end(command, output=stream, environment=environment).returncode
        if answered.exists():
            result: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
            if "error" in result:
                raise RunError(result["error"])
            return result
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RunError(
            f"{task.rpartition(':')[2]}: {_death(code)}" + (f": {said[-1][:_LONGEST_REASON]}" if said else "")
        )


def one_line(error: BaseException) -> str:
    """An error's message on one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, SonewError):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 4] + " ..."


def _death(code: int) -> str:
    if code >= 0:
        return f"the process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"the process was ended by {name}"
