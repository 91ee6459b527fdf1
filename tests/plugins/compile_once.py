"""A stand-in for `iree-compile` that all processes of a test run share: what one has compiled, no other compiles again.

IREE's Python package looks for its programs in `$IREE_TOOL_PATH` first, also in the processes that tests start. A test
of the compiler itself, which must run it, sets that variable to nothing.
"""

import atexit
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

VARIABLE = "IREE_TOOL_PATH"


def share_what_is_compiled() -> None:
    """Makes the stand-in, unless a process that started this one has, and has it removed at the end."""
    if VARIABLE in os.environ:
        return
    try:
        from iree.compiler.tools.binaries import find_tool
    except ModuleNotFoundError:
        return
    folder = Path(tempfile.mkdtemp(prefix="sonew-compiled-once-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    words = [
        sys.executable,
        "-ISE",
        Path(__file__).with_name("compile_once_main.py"),
        find_tool("iree-compile"),
        folder,
    ]
    program = folder / "iree-compile"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    os.environ[VARIABLE] = str(folder)
