"""The folder for a new bundle, and the files of an older bundle there that may be removed.

Only an older bundle's own files are removed: those that its manifest lists, with the hashes given there, and the
manifest. Other programs have a `manifest.json` too, and users put files of theirs beside ours.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from sonew_compiled.contract import MANIFEST_FILE, SIGNATURE_FILE
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.json_files import parse, read_content
from sonew_compiled.runtime.schema import Unfit
from sonew_compiled.runtime.shown import shown

_SHA256 = re.compile(r"[0-9a-f]{64}")
# The largest manifest that is read, in bytes.
_LARGEST = 64 << 20
_LARGEST_SIGNATURE = 1_000
_MOUNTS = Path("/proc/self/mountinfo")

# The SHA-256 of files that were read before, by what changes whenever a file does. The same files are hashed before the
# compiler works, when the new bundle is there, and when the older one is removed.
_known: dict[tuple[int, ...], str] = {}
# Seconds after which a change of a file shows in its times on every file system.
_SETTLED = 2


def is_replaceable(path: Path) -> bool:
    """Whether a directory is empty, or a bundle of any format version that holds nothing but its own files."""
    return not foreign_in(path)


def foreign_in(path: Path) -> str:
    """The name of the first foreign file in a bundle's directory; empty if there is none.

    Raises:
      SonewError: a file cannot be read.
    """
    try:
        return next((name for name, is_own in _contents(path) if not is_own), "")
    except OSError as error:
        raise SonewError(f"{error.filename or path} cannot be read ({error.strerror}): check its permissions") from None


def remove_bundle(path: Path) -> str:
    """Removes a bundle's files one by one, and then the directory if it is empty.

    The manifest is the last, so that after a killed process the rest can still be removed.

    Returns:
      The name of the first foreign file, which keeps the directory; empty if the directory is gone.

    Raises:
      OSError: a file cannot be read or removed.
    """
    contents = list(_contents(path))
    foreign = [name for name, is_own in contents if not is_own]
    for name, is_own in sorted(contents, key=lambda each: each[0] == MANIFEST_FILE):
        if is_own and not (foreign and name == MANIFEST_FILE):
            (path / name).unlink()
    if foreign:
        return foreign[0]
    path.rmdir()
    return ""


def writable_bundle(path: Path) -> Path:
    """The place for a bundle that is requested at `path`, after checking that writing it destroys nothing else.

    A symbolic link to a directory stays, and the directory is filled.

    Raises:
      UsageError: the path is a file, a directory with foreign files, or an older bundle that cannot be exchanged.
      SonewError: there is not a directory that can be written.
    """
    place = Path(os.path.realpath(path))
    if not place.is_dir() and (os.path.lexists(place) or path.is_symlink()):
        kind = "a symbolic link to nothing" if path.is_symlink() else "a file" if place.is_file() else "no directory"
        raise UsageError(f"{path} is {kind}; give a new directory, or an older bundle to replace")
    filled = place.is_dir() and not any(place.iterdir())
    if place.is_dir() and not filled:
        foreign = foreign_in(place)
        if foreign == MANIFEST_FILE or (foreign and not (place / MANIFEST_FILE).exists()):
            raise UsageError(
                f"{path} is a directory that is not a bundle, or holds more than one; give a new directory, or an "
                "older bundle"
            )
        if foreign:
            raise UsageError(
                f"{path} holds {shown(foreign)}, which is not what its manifest lists; give a new directory, or move "
                "that away"
            )
        fixed = "a mount point" if _is_mount(place) else "the current folder" if place == Path.cwd() else ""
        if fixed:
            raise UsageError(
                f"{path} holds a bundle and is {fixed}, which cannot be replaced; empty it or give another"
            )
    # This is checked before minutes of compiling.
    folder = place if filled else next(parent for parent in place.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise SonewError(f"cannot write the bundle {path}: {folder} cannot be written to; give another output")
    return place if path.is_symlink() or not path.name else path


def _contents(path: Path) -> Iterator[tuple[str, bool]]:
    """The name of each entry of a directory, and whether it is the bundle's own."""
    names = sorted(each.name for each in path.iterdir())
    own = _own_files(path) if MANIFEST_FILE in names else {}
    return ((name, _is_own(path / name, own)) for name in names)


def _own_files(path: Path) -> dict[str, str]:
    """The SHA-256 of each file in a bundle's manifest; none for another program's manifest."""
    manifest = path / MANIFEST_FILE
    if not stat.S_ISREG(manifest.lstat().st_mode):
        return {}
    try:
        raw = parse(read_content(manifest, largest=_LARGEST))
        files: dict[str, str] = {name: file["sha256"] for name, file in raw["files"].items()}
        ours = type(raw["format_version"]) is int and {"functions", "targets"} <= raw.keys()
    except (Unfit, KeyError, TypeError, AttributeError):
        return {}
    plain = all(type(digest) is str and _SHA256.fullmatch(digest) for digest in files.values())
    return files | {MANIFEST_FILE: "", SIGNATURE_FILE: ""} if ours and plain else {}


def _is_own(path: Path, own: dict[str, str]) -> bool:
    if path.name not in own or not stat.S_ISREG(path.lstat().st_mode):
        return False
    if path.name == MANIFEST_FILE:
        return True
    if path.name == SIGNATURE_FILE:
        return path.stat().st_size <= _LARGEST_SIGNATURE
    return _sha256(path) == own[path.name]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        digest = _known.get(identity)
        if digest is None:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED:
                _known[identity] = digest
    return digest


def _is_mount(path: Path) -> bool:
    """Whether something is mounted there, another folder of the same file system too."""
    if path.is_mount():
        return True
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:  # not Linux
        return False
    # The fifth word, in which white space and backslashes are octal numbers.
    words = (line.split(b" ")[4] for line in lines)
    return os.fsencode(path) in (
        re.sub(rb"\\([0-7]{3})", lambda each: bytes([int(each[1], 8)]), word) for word in words
    )
