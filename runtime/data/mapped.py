"""Data that do not fit into memory: a folder of mapped `.npy` files, of which only the examples in use are read.

train_image.npy, test_image.npy, ...     a file for each field of both splits
image.npy, ...                           or one for each field, whose last tenth is held out

Checks that other data pass at loading, such as for finite numbers, are made for each batch.
"""

from __future__ import annotations

import hashlib
import mmap
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.data.dataset import Dataset

SUFFIX = ".npy"

# The fingerprint of a file covers this many samples of this many bytes, evenly spread.
_SAMPLES, _SAMPLE = 64, 1 << 16


def is_mapped(array: np.ndarray) -> bool:
    """Whether the memory of an array is a mapped file."""
    return isinstance(array, np.memmap)


def mapped_files(folder: Path) -> list[Path]:
    """The files of a folder that can be mapped."""
    return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)


def open_mapped(path: Path) -> np.ndarray:
    """The array of a file, mapped and read-only, in native byte order and C-contiguous.

    Raises:
      SonewError: the file cannot be read, or holds no such array.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise SonewError(f"cannot read {path} ({error.strerror or error}); save or copy it again") from None
    except Exception:  # NumPy may raise any exception for a damaged header
        array = None
    if not isinstance(array, np.memmap) or not array.flags.c_contiguous or not array.dtype.isnative:
        raise SonewError(
            f"{path} cannot be mapped: it is not an array in C order and native byte order, or is truncated; save it "
            "again with numpy.save(path, numpy.ascontiguousarray(array))"
        )
    return array


def check_whole(array: np.ndarray) -> None:
    """Refuses a mapped array whose file has become shorter since: the system would end a process that reads it.

    Raises:
      SonewError: the file is shorter than the array.
    """
    assert isinstance(array, np.memmap)
    # The map has a descriptor of its own, and so a file that was put in its place is not taken for it. It starts with
    # the page of the first element.
    mapped = array._mmap  # type: ignore[attr-defined]
    start = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    if mapped.size() < start + len(mapped):
        raise SonewError(f"{array.filename} was cut off while it was in use; restore it, and --resume the run")


def fingerprint_of(paths: Mapping[str, Path]) -> str:
    """The fingerprint of mapped files, from names, sizes and samples, since mapping avoids reading whole files.

    The samples include the header, the first examples and the last ones.
    """
    digest = hashlib.sha256()
    for name, path in sorted(paths.items()):
        size = path.stat().st_size
        digest.update(f"{name}\n{size}\n".encode())
        last = max(0, size - _SAMPLE)
        with path.open("rb") as stream:
            for number in range(_SAMPLES):
                stream.seek(last * number // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()


def write_folder(folder: Path, dataset: Dataset) -> int:
    """Writes a data set as such a folder, and returns the number of bytes.

    Raises:
      UsageError: the folder exists and is not empty.
      SonewError: the folder cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already: give a new folder, or an empty one")
    if nested := [field for field in dataset.train if "/" in field]:
        raise UsageError(
            f"`{nested[0]}` cannot be the name of a file: give the data as .npz, or name its fields plainly"
        )
    # A folder that is whole takes the name.
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        beside.mkdir(parents=True)
        for part, fields in (("train", dataset.train), ("test", dataset.test)):
            for field, array in fields.items():
                np.save(beside / f"{part}_{field}{SUFFIX}", array)
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
        return sum(path.stat().st_size for path in mapped_files(folder))
    except OSError as error:
        raise SonewError(f"{folder} cannot be written ({error.strerror or error}): free space") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
