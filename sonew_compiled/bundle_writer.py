"""Writes a bundle atomically, over nothing but an older bundle."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from sonew_compiled.contract import MANIFEST_FILE
from sonew_compiled.errors import SonewError
from sonew_compiled.folder_lock import abandoned, locked_folder
from sonew_compiled.runtime.older_bundle import foreign_in, remove_bundle

_LOG = logging.getLogger(__name__)

# Constants of Linux's fcntl.h and stdio.h.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def write_bundle(destination: Path, files: Mapping[str, bytes], manifest: str) -> None:
    """Writes a bundle beside its destination, and then moves it there.

    Args:
      destination: from `writable_bundle`: nothing, an empty directory, or an older bundle.
      files: the contents by name.
      manifest: the text of `manifest.json`.

    Raises:
      SonewError: the bundle cannot be written. Or a foreign file appeared at the destination meanwhile; the bundle is
        then kept beside it.
    """
    filled = destination.is_dir() and not any(destination.iterdir())
    beside, name = (destination if filled else destination.parent), destination.absolute().name
    try:
        beside.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(beside, name)
        with _gathered(beside, name) as scratch:
            for each, data in files.items():
                (scratch / each).write_bytes(data)
                _LOG.debug("%s of %s: %s bytes", each, destination, f"{len(data):,}")
            (scratch / MANIFEST_FILE).write_text(manifest, encoding="utf-8")
            scratch.chmod(0o777 & ~_umask())
            if filled:
                _fill(destination, scratch)
                return
            old = _take_place(destination, scratch)
        if old is not None:
            _remove_old(old, destination)
    except OSError as error:
        raise SonewError(f"cannot write the bundle {destination}: {error.strerror}; give another -o/--output") from None


@contextlib.contextmanager
def _gathered(beside: Path, name: str) -> Iterator[Path]:
    """A folder to gather the files in, removed on an error unless the bundle in it is to be kept."""
    with locked_folder(beside, f".{name}-") as scratch:
        try:
            yield scratch
        except SonewError:
            raise
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def _remove_abandoned(beside: Path, name: str) -> None:
    """Removes the leftovers of killed processes that wrote to the same place."""
    for left in abandoned(beside.glob(f".{glob.escape(name)}-????????")):
        with contextlib.suppress(OSError, SonewError):
            if not (left / MANIFEST_FILE).exists():
                shutil.rmtree(left)
            else:
                remove_bundle(left)


def _fill(destination: Path, scratch: Path) -> None:
    """Moves the files into an empty directory, which may be a mount point or a working directory."""
    others = [path.name for path in destination.iterdir() if path != scratch]
    if others:
        raise _kept(scratch, destination, others[0])
    for path in sorted(scratch.iterdir(), key=lambda path: path.name == MANIFEST_FILE):
        path.rename(destination / path.name)
    scratch.rmdir()


def _take_place(destination: Path, scratch: Path) -> Path | None:
    """Moves the bundle to its place, and returns the new place of the older bundle, if there was one."""
    if os.path.lexists(destination):
        is_directory = destination.is_dir() and not destination.is_symlink()
        foreign = foreign_in(destination) if is_directory else destination.name
        if foreign:
            raise _kept(scratch, destination, foreign)
        return _exchange(destination, scratch)
    try:
        scratch.rename(destination)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise _kept(scratch, destination, destination.name) from None
    return None


def _remove_old(old: Path, destination: Path) -> None:
    """Removes the older bundle, which has lost its name, unless it holds a foreign file."""
    foreign = foreign_in(old)
    if foreign:
        raise _kept(_exchange(destination, old), destination, foreign)
    remove_bundle(old)


def _exchange(destination: Path, scratch: Path) -> Path:
    """Replaces a folder by another, atomically if the system can, and returns the new place of the old one."""
    if sys.platform == "linux":
        renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        paths = os.fsencode(destination), os.fsencode(scratch)
        if renameat2 and not renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(_RENAME_EXCHANGE)):
            return scratch
    aside = Path(tempfile.mkdtemp(prefix=f"{scratch.name[:-8]}", dir=scratch.parent))
    try:
        destination.rename(aside)
    except OSError:
        aside.rmdir()
        raise
    try:
        scratch.rename(destination)
    except BaseException:
        aside.rename(destination)
        raise
    return aside


def _kept(scratch: Path, destination: Path, foreign: str) -> SonewError:
    """The error that names the place of the new bundle."""
    kept = scratch.with_name(scratch.name.removeprefix("."))
    scratch.rename(kept)
    return SonewError(
        f"{destination} was not replaced: {foreign!r} appeared there while the bundle was made; the new bundle is "
        f"{kept}"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
