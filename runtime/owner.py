"""A folder that one process at a time works in."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.json_files import parse
from sonew_compiled.runtime.schema import Unfit
from sonew_compiled.runtime.shown import shown

_LOCK = ".owner"
# How many bytes of a lock file are read.
_LONGEST = 1000


class InUseError(SonewError):
    """Another process works in the folder."""


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Keeps other processes from working in a folder, which is made if need be.

    The system drops the lock however the process ends. A file system without locks, as some of networks are, has the
    file alone, which says who made it: what a process of this machine that is gone has left does not count there.

    Raises:
      InUseError: another process works in it, named by host, number and time.
      SonewError: the folder cannot be written to.
    """
    if sys.platform == "win32":
        folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(folder)
    except OSError as error:
        for each in missing:
            with contextlib.suppress(OSError):
                each.rmdir()
        raise SonewError(f"{folder} cannot be written ({error.strerror or error}): choose another --output") from None
    try:
        yield
    finally:
        try:
            (folder / _LOCK).unlink(missing_ok=True)
            for each in missing:
                each.rmdir()
        except OSError:  # the folder is not empty, as it should be
            pass
        finally:
            os.close(descriptor)


def _locked(folder: Path) -> int:
    path = folder / _LOCK
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            is_ours = _try_lock(descriptor)
            had = _read(descriptor)
            if is_ours is False or (is_ours is None and _may_live(had)):
                remedy = "" if is_ours is False else f"; if it is not running any more, remove {path}"
                raise InUseError(
                    f"{folder} is in use by {_described(had)}: wait for its end, or choose another --output{remedy}"
                )
            # Another may have ended, and removed the file, since it was opened.
            if _is_at(descriptor, path):
                _sign(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool | None:
    """Whether the lock is ours now; None where the file system has no locks."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    text = json.dumps({"host": platform.node(), "process": os.getpid(), "since": now})
    # On a full disk the lock holds without it.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _read(descriptor: int) -> dict[str, object]:
    try:
        found = parse(os.pread(descriptor, _LONGEST, 0))
    except Unfit:
        return {}
    return found if isinstance(found, dict) else {}


def _described(owner: dict[str, object]) -> str:
    if not {"host", "process", "since"} <= owner.keys():
        return "another process"
    return f"process {shown(owner['process'])} of {shown(owner['host'])} since {shown(owner['since'])}"


def _may_live(owner: dict[str, object]) -> bool:
    """Whether the process that made a file may be running; one of this machine that is gone is not."""
    process = owner.get("process")
    if owner.get("host") != platform.node() or type(process) is not int or process <= 0:
        return bool(owner)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
