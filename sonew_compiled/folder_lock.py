"""Folders that one process works in, and that others may remove once it has ended, however that was."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path


@contextlib.contextmanager
def locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Makes a folder, locked until the end of the process at the latest; it stays.

    Raises:
      OSError: it cannot be made.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = _lock(folder)
        except (BlockingIOError, FileNotFoundError):
            # Another process took it for abandoned before it was locked, and removes it.
            continue
        try:
            if folder.exists():
                yield folder
                return
        finally:
            if lock is not None:
                os.close(lock)


def abandoned(folders: Iterable[Path]) -> Iterator[Path]:
    """Those of some folders that no process has locked any more, each locked while the caller deals with it."""
    for folder in folders:
        with contextlib.suppress(OSError):
            lock = _lock(folder)
            if lock is not None:
                try:
                    yield folder
                finally:
                    os.close(lock)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds a lock, which the system drops however the process ends; None where there are no locks.

    Raises:
      BlockingIOError: another process has locked it.
      OSError: it is no folder, or may not be opened.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
