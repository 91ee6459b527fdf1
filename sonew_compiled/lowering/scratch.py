"""The folders in which compilers work, which are removed however their owner ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sonew_compiled.errors import SonewError

_PREFIX = "sonew-"
_LOCK = ".owner"
# If less than this is left, a compiler's error is taken to be about the disk, whatever it says.
_FULL = 1 << 20


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in `$TMPDIR`, removed at the end. Folders that killed processes have left are removed first.

    Raises:
      SonewError: the folder cannot be made, or the disk is full.
    """
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise SonewError("no folder for temporary files can be written; free space, or set TMPDIR to one") from None
    _remove_abandoned(parent)
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        raise no_space(parent, error) from None
    lock = None
    try:
        lock = _locked(folder)
        yield folder
    except OSError as error:
        raise no_space(parent, error) from None
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def no_space(folder: Path, error: OSError | None = None) -> SonewError:
    """The error of a folder that cannot be written to."""
    reason = "it is full" if error is None else error.strerror or str(error)
    return SonewError(
        f"cannot write to {folder}, where compilers work ({reason}); free space there, or set TMPDIR to another folder"
    )


def is_full(folder: Path) -> bool:
    """Whether the disk of the folder has almost no space left."""
    return shutil.disk_usage(folder).free < _FULL


def _locked(folder: Path) -> int | None:
    """Locks the folder until the process ends in any way; None if the file system has no locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_abandoned(parent: Path) -> None:
    """Removes this user's folders whose owner holds no lock any more."""
    if sys.platform == "win32":
        return
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        # Another process may remove it at the same moment.
        with contextlib.suppress(OSError):
            if lock.stat().st_uid == os.getuid() and (descriptor := _locked(lock.parent)) is not None:
                shutil.rmtree(lock.parent, ignore_errors=True)
                os.close(descriptor)
