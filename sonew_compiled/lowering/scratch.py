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
from sonew_compiled.folder_lock import abandoned, locked_folder

_PREFIX = "sonew-work-"
# Folders of other programs may have names like ours, and must not be removed. Ours have this file.
_MARK = ".scratch"
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
        with locked_folder(parent, _PREFIX) as folder:
            try:
                (folder / _MARK).touch()
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise no_space(parent, error) from None


def no_space(folder: Path, error: OSError | None = None) -> SonewError:
    """The error of a folder that cannot be written to."""
    reason = "it is full" if error is None else error.strerror or str(error)
    return SonewError(
        f"cannot write to {folder}, where compilers work ({reason}); free space there, or set TMPDIR to another folder"
    )


def is_full(folder: Path) -> bool:
    """Whether the disk of the folder has almost no space left."""
    return shutil.disk_usage(folder).free < _FULL


def _remove_abandoned(parent: Path) -> None:
    """Removes this user's folders that no process works in any more."""
    if sys.platform == "win32":
        return
    for folder in abandoned(path for path in parent.glob(f"{_PREFIX}????????") if _is_ours(path)):
        if (folder / _MARK).exists():
            shutil.rmtree(folder, ignore_errors=True)
        else:
            # Either its owner was killed before making the file, or another program owns it. An empty folder is
            # removed.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _is_ours(path: Path) -> bool:
    # Another process may remove it at the same moment.
    with contextlib.suppress(OSError):
        return path.stat().st_uid == os.getuid()
    return False
