"""Runs the command line in this process, and kills it by SIGKILL at one of its changes to the file system.

    python killer.py MOMENT sonew-arguments...

The moment -1 never comes; the number of changes is then written to `moments` in the current folder.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def main(moment: int) -> None:
    from sonew_compiled.cli import main as command_line

    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            _, mode, flags = arguments
            if not (any(letter in mode for letter in "wax+") if isinstance(mode, str) else flags & _WRITING):
                return
        elif event not in _CHANGES:
            return
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    sys.addaudithook(hook)
    try:
        command_line()
    finally:
        if moment < 0:
            Path("moments").write_text(str(count))


if __name__ == "__main__":
    moment = int(sys.argv.pop(1))
    sys.argv[0] = "sonew"
    main(moment)
