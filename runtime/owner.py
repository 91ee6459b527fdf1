"""The lock on a folder in which one process at a time works."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.json_files import parse
from sonew_compiled.runtime.schema import Unfit
from sonew_compiled.runtime.shown import shown

logger = logging.getLogger("sonew_compiled")

_LOCK = ".owner"
# The bytes of a lock file that are read.
_LONGEST = 1000
# Seconds between two signs of life of an owner, and for how long another process waits for one.
_BEAT, _PATIENCE = 2.0, 8.0
# Seconds for which a process that holds the lock is given to end. A worker lives on for one after its `mpirun` was
# killed, or has crashed as it may under fault tolerance.
_ENDING = 3.0
_POLL = 0.05


class InUseError(SonewError):
    """Another process works in the folder."""


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Keeps other processes from working in a folder, which is made if need be.

    The system drops the lock however the process ends. File systems of networks may have no locks, or locks that hold
    on one machine only. There the file says who made it, and the owner touches it every two seconds: what nobody
    touches was left by a process that was killed.

    Raises:
      InUseError: another process works in it, named by host, number and time, and has not ended within three seconds.
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
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(descriptor, ended), daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        try:
            (folder / _LOCK).unlink(missing_ok=True)
            for each in missing:
                each.rmdir()
        except OSError:  # the folder is not empty, as it should be
            pass
        finally:
            os.close(descriptor)


def _locked(folder: Path) -> int:
    path, until = folder / _LOCK, time.monotonic() + _ENDING
    while True:
        descriptor, is_new = _opened(path)
        try:
            is_ours = _try_lock(descriptor)
            had = {} if is_new else _read(descriptor)
            # Our lock excludes this machine's processes, but perhaps not another machine's.
            is_settled = is_new or (is_ours and had.get("host", platform.node()) == platform.node())
            if is_ours is False and had.get("process") != os.getpid() and time.monotonic() < until:
                time.sleep(_POLL)
            elif is_ours is False or (not is_settled and _is_alive(path, descriptor, had)):
                raise InUseError(
                    f"{folder} is in use by {_described(had)}: wait until it ends, or choose another --output"
                )
            elif is_ours is None and not is_new:
                # The process that makes the file again owns the folder.
                _remove(path, descriptor)
            # Another process may have ended and removed the file since this one opened it.
            elif _is_at(descriptor, path):
                _sign(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _opened(path: Path) -> tuple[int, bool]:
    """The lock file's descriptor, and whether this process made the file."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644), True
        with contextlib.suppress(FileNotFoundError):  # its owner ended at this moment
            return os.open(path, flags), False


def _beat(descriptor: int, ended: threading.Event) -> None:
    """Touches an owner's file until it ends."""
    while not ended.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _remove(path: Path, descriptor: int) -> None:
    """Removes the file of a killed process, and not one that a third process has made since."""
    aside = path.with_name(f"{_LOCK}-{secrets.token_hex(4)}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if _is_at(descriptor, aside):
            aside.unlink()
        else:
            aside.rename(path)


def _try_lock(descriptor: int) -> bool | None:
    """Whether the lock is ours now; None if the file system has no locks."""
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
    # On a full disk the lock holds without the text.
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


def _is_alive(path: Path, descriptor: int, owner: dict[str, object]) -> bool:
    """Whether the process that made a file is running: it touches the file."""
    if owner.get("host") == platform.node() and _is_gone(owner.get("process")):
        return False
    before = os.fstat(descriptor).st_mtime_ns
    logger.warning("%s is of %s: waiting to see whether it is alive", path, _described(owner))
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        time.sleep(_BEAT / 4)
        # Network file systems look at a file anew when it is opened.
        try:
            with path.open("rb") as stream:
                if os.fstat(stream.fileno()).st_mtime_ns != before:
                    return True
        except FileNotFoundError:
            return False
    return False


def _is_gone(process: object) -> bool:
    """Whether this machine has no process of that number."""
    if type(process) is not int or process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
