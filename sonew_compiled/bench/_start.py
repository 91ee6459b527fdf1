"""The command line, which ends at the first training step and writes the time to a file.

Usage: `python -m ... STAMP run BUNDLE ...`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TextIO

from sonew_compiled.runtime import reporter


class _Stamp(reporter.Reporter):
    def __init__(self, path: Path) -> None:
        self._path = path

    def step(self, *, step: int, loss: float) -> None:
        now = time.time()
        self._path.write_text(repr(now), encoding="utf-8")
        os._exit(0)


def _main() -> None:
    path = Path(sys.argv.pop(1))

    def make_stamp(stream: TextIO | None = None, *, unit: str = "") -> reporter.Reporter:
        return _Stamp(path)

    reporter.make_reporter = make_stamp
    from sonew_compiled.cli import main

    main()


if __name__ == "__main__":
    _main()
