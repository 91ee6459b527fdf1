"""Data sets from the user's own files: `.npy`, `.npz` and IDX images."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime._memory import physical_memory
from sonew_compiled.runtime.data._idx import LONGEST_HEADER, idx_size, parse_idx, unpacked
from sonew_compiled.runtime.data.dataset import (
    Dataset,
    check_divided,
    checked,
    fingerprint,
    held_out,
    name_shown,
    names_shown,
)
from sonew_compiled.runtime.data.mapped import fingerprint_of, mapped_files, open_mapped
from sonew_compiled.runtime.data.stored import open_stored
from sonew_compiled.runtime.numpy_files import read_numpy

ACCEPTED = (
    "a .npy file of images, a .npz file, an IDX file of images (*-idx3-ubyte or *-idx3-ubyte.gz), or a folder of .npy "
    "files"
)

_KERAS = {"x_train": "image", "y_train": "label", "x_test": "image", "y_test": "label"}
_LAYOUTS = (
    "accepted are train_<field> and test_<field> for each field, or x_train, y_train, x_test, y_test, or plain field "
    "names such as image and label"
)
_REMEDY = "save or copy it again"
# Bytes behind the end of a file that are read, so that the error can say how many there are.
_SPARE = 1 << 20

_Fields = dict[str, np.ndarray]
_Split = tuple[_Fields, _Fields]


def reader(path: Path) -> Callable[[str, Path, int], Dataset] | None:
    """The function that loads a file of this name, `load(name, path, least)`; None if there is none."""
    if path.suffix == ".npy":
        return _load_npy
    if path.suffix == ".npz":
        return _load_npz
    if re.search(r"-idx3-ubyte(\.gz)?$", path.name):
        return _load_idx
    return None


def load_folder(name: str, folder: Path, least: int) -> Dataset:
    """The data set of a folder of `.npy` files, which are mapped and not read: a file for each array of a `.npz`.

    Raises:
      UsageError: their names or contents are not those of a data set.
      SonewError: a file cannot be read or mapped.
    """
    paths = {path.stem: path for path in mapped_files(folder)}
    arrays = {key: open_mapped(path) for key, path in paths.items()}
    print_of = fingerprint_of(paths)
    return _of_arrays(name, arrays, print_of, least, source=str(folder))


def _load_npy(name: str, path: Path, least: int) -> Dataset:
    arrays, digest = read_numpy(path)
    if set(arrays) != {None}:
        raise UsageError(f"{path} is a .npz archive under another name; rename it to end in .npz")
    fields = {"image": checked("image", arrays[None], source=str(path))}
    return held_out(name, fields, fingerprint([digest]), source=str(path), least=least)


def _load_npz(name: str, path: Path, least: int) -> Dataset:
    mapped = open_stored(path)
    if mapped is not None:
        return _of_arrays(name, mapped, fingerprint_of({"": path}), least, source=str(path))
    arrays, digest = read_numpy(path)
    if None in arrays:
        raise UsageError(f"{path} is a .npy file under another name; rename it to end in .npy")
    named = {key: array for key, array in arrays.items() if key is not None}
    return _of_arrays(name, named, fingerprint([digest]), least, source=str(path))


def _load_idx(name: str, path: Path, least: int) -> Dataset:
    # A few bytes can unpack to any number. Little more is unpacked than the header asks for.
    size = idx_size(unpacked(path, remedy=_REMEDY, limit=LONGEST_HEADER))
    if size > physical_memory():
        raise SonewError(
            f"{path} asks for {size:,} bytes, more memory than there is, or is truncated or corrupt; {_REMEDY}"
        )
    content = unpacked(path, remedy=_REMEDY, limit=size + _SPARE)
    images = parse_idx(content, ndim=3, source=str(path), remedy=_REMEDY)
    print_of = fingerprint([hashlib.sha256(content).hexdigest()])
    return held_out(name, {"image": images}, print_of, source=str(path), least=least)


def _of_arrays(name: str, arrays: Mapping[str, np.ndarray], print_of: str, least: int, *, source: str) -> Dataset:
    """The data set of named arrays; where none is for testing, the last tenth of them is held out."""
    train, test = _divide(arrays, source=source)
    if not test:
        return held_out(name, train, print_of, source=source, least=least)
    check_divided(train, test, source=source)
    return Dataset(name=name, train=train, test=test, fingerprint=print_of)


def _divide(arrays: Mapping[str, np.ndarray], *, source: str) -> _Split:
    """The checked training and test fields of an archive, from their names; plain names are of training fields."""
    if not arrays:
        raise UsageError(f"{source} holds no arrays; {_LAYOUTS}")
    if arrays.keys() & _KERAS.keys():
        fields = dict(_KERAS)
        if any(array.dtype.kind == "f" for key, array in arrays.items() if key.startswith("y_")):
            fields |= {"y_train": "target", "y_test": "target"}
        complete = "x_train" in arrays and arrays.keys() <= fields.keys()
        parts = {key: key.endswith("_train") for key in fields}
    else:
        fields = {key: re.sub("^(train|test)_", "", key) for key in arrays}
        prefixed = [key for key in arrays if key.startswith(("train_", "test_"))]
        parts = {key: not key.startswith("test_") for key in arrays}
        complete = not prefixed or (len(prefixed) == len(arrays) and all(fields.values()) and any(parts.values()))
    if not complete:
        raise UsageError(f"{source} holds {names_shown(arrays)}; {_LAYOUTS}")
    train: _Fields = {}
    test: _Fields = {}
    for key, array in arrays.items():
        part = train if parts[key] else test
        part[fields[key]] = checked(fields[key], array, source=f"{source}: `{name_shown(key)}`")
    return train, test
