"""Folders in which one process works, and that others may remove once the process has ended in any way."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path


@contextlib.contextmanager
def locked_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Makes a folder that is locked, at most until the process ends; the folder stays.

    Raises:
      OSError: the folder cannot be made.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = _lock(folder)
        except (BlockingIOError, FileNotFoundError):
            # Another process has removed it, as it was not locked yet and seemed abandoned.
            continue
        try:
            if folder.exists():
                yield folder
                return
        finally:
            if lock is not None:
                os.close(lock)


def abandoned(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders that no process holds any more, each locked while the caller works on it."""
    for folder in folders:
        with contextlib.suppress(OSError):
            lock = _lock(folder)
            if lock is not None:
                try:
                    yield folder
                finally:
                    os.close(lock)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds a lock until the process ends in any way; None if the file system has no locks.

    Raises:
      BlockingIOError: another process has locked the folder.
      OSError: the path is no folder, or may not be opened.
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
