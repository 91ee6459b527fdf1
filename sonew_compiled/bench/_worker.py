"""Carries out one task of `_apart`: `python -m sonew_compiled.bench._worker REQUEST RESULT`, two JSON files."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from sonew_compiled.bench._apart import one_line
from sonew_compiled.errors import SonewError


def main(asked: Path, answered: Path) -> None:
    """Calls the function that the request names, and writes its result or its error."""
    request = json.loads(asked.read_text(encoding="utf-8"))
    module, _, function = request["task"].partition(":")
    try:
        result = getattr(importlib.import_module(module), function)(**request["arguments"])
    except SonewError as error:
        result = {"error": one_line(error)}
    except ModuleNotFoundError as error:
        result = {"error": f"this needs {error.name}, which is not installed"}
    answered.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
