"""The `sonew` command line. Commands import what they need when they run: a device has neither JAX nor the compiler."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The console script; see `_main.main`."""
    try:
        # Most of a short command's time is in these imports.
        from sonew_compiled.cli._main import main as run

        run()
    except KeyboardInterrupt:  # within the imports, or once more at the end
        sys.stderr.write("sonew: stopped\n")
        sys.exit(130)
