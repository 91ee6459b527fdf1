"""The atomic replacement of a run in a folder by another, even if the process is killed.

The new run's files are gathered in `.new/`. One rename, to `.replacing/`, makes the folder the new run's. Then the old
files are removed, and the new ones are moved to their places. If the process is killed, the next one that opens the
folder repeats this from the start.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.json_files import parse, read_content
from sonew_compiled.runtime.older_bundle import is_replaceable, remove_bundle
from sonew_compiled.runtime.owner import InUseError, owned
from sonew_compiled.runtime.schema import listed, text
from sonew_compiled.runtime.tensorfile import write_atomically

logger = logging.getLogger("sonew_compiled")

BUNDLE = "bundle"

_NEW = ".new"
_COMMITTED = ".replacing"
_OLD_FILES = "old-files.json"
_OLD_BUNDLE = "old-bundle"
_OLD_NAMES = listed(text(), 1_000_000)
CHECKPOINT_NAME = re.compile(r"step-([0-9]{8,15})\.safetensors")
"""A checkpoint's file, with its step."""


def gathering(folder: Path) -> Path:
    """The place where the files that replace a folder's are gathered."""
    return folder / _NEW


def discard(folder: Path) -> None:
    """Removes gathered files that have not replaced any."""
    shutil.rmtree(gathering(folder), ignore_errors=True)


def replace(folder: Path, old: Iterable[str]) -> None:
    """Moves the gathered files into the folder, in place of its files of these names and of the same names.

    Raises:
      SonewError: a file cannot be moved or removed; the rest is done when the folder is next opened.
    """
    new = gathering(folder)
    write_atomically(new / _OLD_FILES, [json.dumps(sorted(old)).encode()])
    try:
        new.rename(folder / _COMMITTED)
    except OSError as error:
        raise SonewError(f"{folder} cannot be written ({error.strerror or error}): choose another --output") from None
    finish(folder)


def finish_abandoned(folder: Path) -> None:
    """Finishes a replacement for a reader of the folder, unless the process that began it is still working.

    Raises:
      SonewError: a file cannot be moved or removed.
    """
    if (folder / _COMMITTED).is_dir():
        with contextlib.suppress(InUseError), owned(folder):
            finish(folder)


def finish(folder: Path) -> None:
    """Finishes an interrupted replacement; most folders have none.

    Raises:
      SonewError: a file cannot be moved or removed.
    """
    committed = folder / _COMMITTED
    if not committed.is_dir():
        return
    old_files = committed / _OLD_FILES
    try:
        # A missing file was moved before the process was killed.
        with contextlib.suppress(FileNotFoundError):
            for name in _OLD_NAMES(parse(read_content(old_files)), "the list of old files"):
                _remove(folder, name)
            old_files.unlink()
        if (committed / _OLD_BUNDLE).is_dir():
            _remove_bundle(committed / _OLD_BUNDLE, folder)
        with contextlib.suppress(FileNotFoundError):
            for path in list(committed.iterdir()):
                path.replace(folder / path.name)
            committed.rmdir()
    except (OSError, ValueError) as error:
        raise SonewError(
            f"{folder} holds a run that another one was about to replace, which cannot be finished ({error}): make the "
            "folder writable, or move it away"
        ) from None


def _remove_bundle(old: Path, folder: Path) -> None:
    """Removes an old bundle; foreign files in it are left in the run's folder."""
    foreign = remove_bundle(old)
    if foreign:
        kept = folder / f"{_OLD_BUNDLE}-{secrets.token_hex(4)}"
        old.rename(kept)
        logger.warning("the old bundle of %s held %r, which is not the bundle's: it is in %s", folder, foreign, kept)


def _remove(folder: Path, name: str) -> None:
    """Removes an old file of a run; a damaged list may name other files, which stay."""
    path = folder / name
    if name == BUNDLE:
        # The bundle is moved away in one step, because half a bundle could not be recognised later.
        if path.is_dir() and is_replaceable(path):
            path.rename(folder / _COMMITTED / _OLD_BUNDLE)
    elif CHECKPOINT_NAME.fullmatch(name):
        path.unlink(missing_ok=True)
