"""Fetches MNIST from public mirrors.

An interrupted transfer leaves a `.part` file, from which the next attempt continues. A mirror is not trusted: a file
gets its name only after its unpacked contents had MNIST's SHA-256.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.data.mnist import FILES, FileRow, FileState, read_valid, verify_mnist

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)

# Called with the name of the file, the bytes transferred so far and, if the mirror tells, the total.
Progress = Callable[[str, int, int | None], None]

_TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 1 << 16
# Three times the largest file: a mirror that sends more does not have MNIST.
_LARGEST_BYTES = 32 << 20
_ATTEMPTS = 5


class _MirrorError(Exception):
    """A mirror does not deliver the file; the message has the reason."""


class _BrokenOffError(_MirrorError):
    """The transfer ended early; the part so far is kept."""


def fetch_mnist(
    directory: Path,
    *,
    mirrors: Sequence[str] = MIRRORS,
    progress: Progress | None = None,
    timeout: float = _TIMEOUT_SECONDS,
) -> list[FileRow]:
    """Puts the four gzipped files of MNIST into a folder; valid files that are already there are kept.

    Args:
      directory: the folder, which is made if necessary.
      mirrors: addresses to which the name of a file is appended; they are tried in order for each file.
      progress: is called for every chunk.
      timeout: the seconds to wait for a mirror's answer or next bytes.

    Returns:
      A row for each file: `fetched`, or `valid` if it was there; `detail` is its path.

    Raises:
      SonewError: no mirror gives a file, or the folder cannot be written.
    """
    rows = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (row,) = verify_mnist(directory, files=(name,))
            if row.status is not FileState.VALID:
                path = _fetch(name, directory, mirrors, progress or (lambda *_: None), timeout)
                row = FileRow(name, FileState.FETCHED, str(path))
            rows.append(row)
    except OSError as error:
        raise SonewError(
            f"cannot write to {directory} ({error.strerror or error}); name another folder with --data-dir"
        ) from None
    return rows


def _fetch(name: str, directory: Path, mirrors: Sequence[str], progress: Progress, timeout: float) -> Path:
    path = directory / f"{name}.gz"
    part = directory / f"{name}.gz.part"
    # A process that was stopped may have left the part complete.
    done = _is_valid(part, name)
    reasons = []
    for mirror in mirrors:
        if done:
            break
        try:
            _fetch_from(f"{mirror.rstrip('/')}/{name}.gz", part, name, progress, timeout)
            done = True
        except _MirrorError as error:
            reasons.append(f"{urlsplit(mirror).netloc or mirror}: {error}")
    if not done:
        raise SonewError(
            f"cannot fetch {name}.gz ({'; '.join(reasons) or 'no mirrors'}); try again later, or put "
            f"{', '.join(f'{file}.gz' for file in FILES)} from any copy of MNIST into {directory}"
        )
    part.replace(path)
    return path


def _fetch_from(url: str, part: Path, name: str, progress: Progress, timeout: float) -> None:
    """Completes `part` to the whole file."""
    for attempt in range(_ATTEMPTS):
        start = part.stat().st_size if part.exists() else 0
        try:
            _transfer(url, part, start, lambda done, total: progress(name, done, total), timeout)
        except _BrokenOffError:
            # Another attempt is worthwhile only if the mirror sent something.
            if attempt == _ATTEMPTS - 1 or not part.exists() or part.stat().st_size <= start:
                raise
            continue
        if _is_valid(part, name):
            return
        part.unlink(missing_ok=True)
        # The old part may be at fault, so the mirror may send the whole file once more.
        if start == 0:
            raise _MirrorError("the file it has is not MNIST's (SHA-256 differs)")
    raise _MirrorError(f"no whole file after {_ATTEMPTS} attempts")


def _transfer(url: str, part: Path, start: int, progress: Callable[[int, int | None], None], timeout: float) -> None:
    """Makes one request. Appends to `part` from byte `start` on, or rewrites it if the mirror sends the whole file."""
    headers = {"User-Agent": "sonew-compiled", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                # The mirror's file is not longer than the part, so the part is wrong and is removed.
                part.unlink(missing_ok=True)
                return
            raise _MirrorError(f"HTTP {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _MirrorError(_reason(error)) from None
    with response:
        total = _total(response, start)
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0
        done = start
        with part.open("ab" if start else "wb") as file:
            while chunk := _read(response):
                file.write(chunk)
                done += len(chunk)
                if done > _LARGEST_BYTES:
                    break
                progress(done, total)
    if done > _LARGEST_BYTES:
        part.unlink()
        raise _MirrorError(f"it sends more than {_LARGEST_BYTES >> 20} MiB")
    if total is not None and done < total:
        raise _BrokenOffError(f"the transfer broke off at {done} of {total} bytes")


def _total(response: http.client.HTTPResponse, start: int) -> int | None:
    """The bytes of the whole file; None if the mirror does not tell."""
    if response.status == http.client.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            raise _MirrorError("it answers with another range than asked for")
        return None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _read(response: http.client.HTTPResponse) -> bytes:
    """The next chunk; empty at the end."""
    try:
        return response.read1(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(f"the transfer broke off ({_reason(error)})") from None


def _is_valid(part: Path, name: str) -> bool:
    try:
        read_valid(part, name)
    except SonewError:
        return False
    return True


def _reason(error: Exception) -> str:
    """One line about a network error."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    text = (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__
    return " ".join(str(text).split())
