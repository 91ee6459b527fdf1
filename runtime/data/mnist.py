"""MNIST: the full set from the user's folders, and the 10,000 images that come with the package."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.data._idx import parse_idx, unpacked
from sonew_compiled.runtime.data.dataset import Dataset, check_lengths, fingerprint, split
from sonew_compiled.runtime.shown import argument

FULL = "mnist"
EMBEDDED = "mnist-10k"
EMBEDDED_TRAIN_EXAMPLES = 9_000
EMBEDDED_DIRECTORY = Path(__file__).parent
DIRECTORY_VARIABLE = "SONEW_DATA"

# The SHA-256 of the unpacked files.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FILES = tuple(SHA256)
EMBEDDED_FILES = FILES[2:]

# The largest file has 47 MB. A file that unpacks to more is not MNIST, and must not fill the memory.
_UNPACKED_LIMIT = 64 << 20
_SUBFOLDERS = (".", "mnist", "MNIST/raw")


class FileState(StrEnum):
    """The state of a file of MNIST."""

    VALID = "valid"
    FETCHED = "fetched"
    MISSING = "missing"
    INVALID = "invalid"


class FileRow(NamedTuple):
    """A file of MNIST by its official name, without `.gz`; `detail` is its place or its fault."""

    file: str
    status: FileState
    detail: str


def load_full(data_dir: Path | None) -> Dataset:
    """The 60,000 training and 10,000 test images of MNIST.

    Args:
      data_dir: the folder to look in first, then `$SONEW_DATA`, then the user's cache.

    Raises:
      SonewError: no folder has all four files, or a file is not MNIST's.
    """
    directory = find(data_dir)
    train, train_digests = _load(directory, FILES[:2])
    test, test_digests = _load(directory, FILES[2:])
    return Dataset(name=FULL, train=train, test=test, fingerprint=fingerprint(train_digests + test_digests))


def load_embedded() -> Dataset:
    """MNIST's 10,000 test images, which come with the package: the first 9,000 to train on, the rest to test.

    Raises:
      SonewError: the installed files are damaged.
    """
    fields, digests = _load(EMBEDDED_DIRECTORY, EMBEDDED_FILES)
    train, test = split(fields, EMBEDDED_TRAIN_EXAMPLES)
    return Dataset(name=EMBEDDED, train=train, test=test, fingerprint=fingerprint(digests))


def default_directory() -> Path:
    """The folder for `sonew data fetch`: `$SONEW_DATA` if set, else the user's cache.

    Raises:
      SonewError: neither is known.
    """
    base = _configured_directory() or _cache_directory()
    if base is None:
        raise SonewError(
            f"this user has no home folder to keep the data in; set {DIRECTORY_VARIABLE}, or give --data-dir"
        )
    return base


def find(data_dir: Path | None, *, complete: bool = True) -> Path:
    """The first folder that has MNIST.

    Args:
      data_dir: looked in first, then `$SONEW_DATA`, then the user's cache; each itself, then its `mnist` and
        `MNIST/raw` subfolders.
      complete: whether the folder must have all four files; else, if none has, the first with any of them will do.

    Raises:
      SonewError: there is none.
    """
    looked = []
    partial: Path | None = None
    for base in _bases(data_dir):
        lacking = set(FILES)
        for folder in (base / subfolder for subfolder in _SUBFOLDERS):
            missing = {name for name in FILES if locate(folder, name) is None}
            if not missing:
                return folder
            if len(missing) < len(FILES):
                partial = partial or folder
                lacking = min(lacking, missing, key=len)
        looked.append(f"{base} (lacks {', '.join(sorted(lacking))})" if len(lacking) < len(FILES) else str(base))
    if partial and not complete:
        return partial
    fetch = f"sonew data fetch{f' --data-dir {argument(data_dir)}' if data_dir else ''}"
    raise SonewError(
        f"the data set `{FULL}` is not in {', '.join(looked) or 'a folder known here'}; get it with `{fetch}`, or put "
        "its four files (train- and t10k-, images-idx3-ubyte and labels-idx1-ubyte, plain or .gz) in such a folder"
    )


def locate(folder: Path, name: str) -> Path | None:
    """The file of that official name in a folder, `.gz` or plain, or None.

    `.gz` comes first, because `sonew data fetch` writes it and so can repair a folder with any other files.

    Raises:
      SonewError: the folder may not be read.
    """
    for path in (folder / f"{name}.gz", folder / name):
        try:
            if path.is_file():
                return path
        except OSError as error:
            raise SonewError(
                f"cannot look into {folder} ({error.strerror or error}); allow reading it or name another folder with "
                "--data-dir"
            ) from None
    return None


def read_valid(path: Path, name: str) -> bytes:
    """The unpacked contents of a file, which must be those of MNIST's file `name`.

    Raises:
      SonewError: the file cannot be read, or has other contents.
    """
    content = unpacked(path, remedy=_remedy(path), limit=_UNPACKED_LIMIT)
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise SonewError(
            f"{path} is not MNIST's {name}: SHA-256 of the unpacked file is {found}, expected {SHA256[name]}; "
            f"{_remedy(path)}"
        )
    return content


def verify_mnist(directory: Path, *, files: Iterable[str] = FILES) -> list[FileRow]:
    """Checks the files of MNIST in a folder: a row for each of `files`, in order; never raises for a bad file."""
    rows = []
    for name in files:
        try:
            path = locate(directory, name)
            if path is None:
                rows.append(FileRow(name, FileState.MISSING, f"neither {name}.gz nor {name} is in {directory}"))
                continue
            read_valid(path, name)
        except SonewError as error:
            rows.append(FileRow(name, FileState.INVALID, str(error)))
        else:
            rows.append(FileRow(name, FileState.VALID, str(path)))
    return rows


def _load(directory: Path, names: tuple[str, ...]) -> tuple[dict[str, np.ndarray], list[str]]:
    """`image` and `label` from a pair of files, and the digests of these."""
    images, labels = (_parse(directory, name, ndim) for name, ndim in zip(names, (3, 1), strict=True))
    fields = {"image": images, "label": labels.astype(np.int32)}
    fields["label"].setflags(write=False)
    check_lengths(fields, least=1, source=str(directory))
    return fields, [SHA256[name] for name in names]


def _parse(directory: Path, name: str, ndim: int) -> np.ndarray:
    # The embedded folder is not searched before, so a missing file is found here.
    path = locate(directory, name) or directory / f"{name}.gz"
    return parse_idx(read_valid(path, name), ndim=ndim, source=str(path), remedy=_remedy(path))


def _bases(data_dir: Path | None) -> list[Path]:
    bases = (data_dir, _configured_directory(), _cache_directory())
    return list(dict.fromkeys(base for base in bases if base is not None))


def _configured_directory() -> Path | None:
    configured = os.environ.get(DIRECTORY_VARIABLE)
    if not configured:
        return None
    try:
        return Path(configured).expanduser()
    except RuntimeError:
        raise SonewError(
            f"{DIRECTORY_VARIABLE} is {configured!r}, and there is no such user here; set it to a full path"
        ) from None


def _cache_directory() -> Path | None:
    """The folder in the user's cache; None for a user without a home folder, as in containers."""
    try:
        return platformdirs.user_cache_path("sonew-compiled") / "mnist"
    except RuntimeError:
        return None


def _remedy(path: Path) -> str:
    if path.parent == EMBEDDED_DIRECTORY:
        return "reinstall sonew-compiled"
    return f"replace it with `sonew data fetch --data-dir {argument(path.parent)}`"
