"""Data sets from the user's own files: `.npy`, `.npz` and IDX images."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime._memory import physical_memory
from sonew_compiled.runtime.data._idx import LONGEST_HEADER, idx_size, parse_idx, unpacked
from sonew_compiled.runtime.data.dataset import Dataset, check_lengths, checked, fingerprint, hold_out
from sonew_compiled.runtime.data.mapped import fingerprint_of, mapped_files, open_mapped
from sonew_compiled.runtime.numpy_files import read_numpy
from sonew_compiled.runtime.shown import shown

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
# Names of arrays that an error shows.
_MOST_SHOWN = 8

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
    divided = _divide(arrays, source=str(folder))
    if divided is None:
        fields = {key: checked(key, array, source=f"{folder}: `{key}`") for key, array in arrays.items()}
        check_lengths(fields, least=least, source=str(folder))
        divided = hold_out(fields)
    train, test = divided
    _check_divided(train, test, source=str(folder))
    return Dataset(name=name, train=train, test=test, fingerprint=print_of)


def _load_npy(name: str, path: Path, least: int) -> Dataset:
    arrays, digest = read_numpy(path)
    if set(arrays) != {None}:
        raise UsageError(f"{path} is a .npz archive under another name; rename it to end in .npz")
    return _held_out(name, {"image": checked("image", arrays[None], source=str(path))}, digest, least, source=str(path))


def _load_npz(name: str, path: Path, least: int) -> Dataset:
    arrays, digest = read_numpy(path)
    if None in arrays:
        raise UsageError(f"{path} is a .npy file under another name; rename it to end in .npy")
    named = {key: array for key, array in arrays.items() if key is not None}
    divided = _divide(named, source=str(path))
    if divided is None:
        fields = {key: checked(key, array, source=f"{path}: `{_name(key)}`") for key, array in named.items()}
        return _held_out(name, fields, digest, least, source=str(path))
    train, test = divided
    _check_divided(train, test, source=str(path))
    return Dataset(name=name, train=train, test=test, fingerprint=fingerprint([digest]))


def _load_idx(name: str, path: Path, least: int) -> Dataset:
    # A few bytes can unpack to any number of them: no more is unpacked than the header asks for, and some.
    size = idx_size(unpacked(path, remedy=_REMEDY, limit=LONGEST_HEADER))
    if size > physical_memory():
        raise SonewError(
            f"{path} asks for {size:,} bytes, more memory than there is, or is truncated or corrupt; {_REMEDY}"
        )
    content = unpacked(path, remedy=_REMEDY, limit=size + _SPARE)
    images = parse_idx(content, ndim=3, source=str(path), remedy=_REMEDY)
    return _held_out(name, {"image": images}, hashlib.sha256(content).hexdigest(), least, source=str(path))


def _held_out(name: str, fields: Mapping[str, np.ndarray], digest: str, least: int, *, source: str) -> Dataset:
    check_lengths(fields, least=least, source=source)
    train, test = hold_out(fields)
    return Dataset(name=name, train=train, test=test, fingerprint=fingerprint([digest]))


def _divide(arrays: Mapping[str, np.ndarray], *, source: str) -> _Split | None:
    """The checked training and test fields of an archive, from their names; None for plain field names."""
    if not arrays:
        raise UsageError(f"{source} holds no arrays; {_LAYOUTS}")
    if arrays.keys() & _KERAS.keys():
        fields = dict(_KERAS)
        complete = arrays.keys() in (fields.keys(), {"x_train", "x_test"})
        parts = {key: key.endswith("_train") for key in fields}
    else:
        fields = {key: re.sub("^(train|test)_", "", key) for key in arrays}
        parts = {key: key.startswith("train_") for key in arrays}
        prefixed = [key for key in arrays if key.startswith(("train_", "test_"))]
        if not prefixed:
            return None
        complete = len(prefixed) == len(arrays) and all(fields.values())
    if not complete:
        raise UsageError(f"{source} holds {_names(arrays)}; {_LAYOUTS}")
    train: _Fields = {}
    test: _Fields = {}
    for key, array in arrays.items():
        part = train if parts[key] else test
        part[fields[key]] = checked(fields[key], array, source=f"{source}: `{_name(key)}`")
    return train, test


def _check_divided(train: _Fields, test: _Fields, *, source: str) -> None:
    _check_same_fields(train, test, source=source)
    check_lengths(train, least=1, source=f"{source}, training part,")
    check_lengths(test, least=1, source=f"{source}, test part,")


def _check_same_fields(train: _Fields, test: _Fields, *, source: str) -> None:
    if train.keys() != test.keys():
        alone = _names(sorted(train.keys() ^ test.keys()))
        raise UsageError(f"{source} has {alone} in only one of the training and test parts; each field must be in both")
    for name in train:
        here, there = train[name], test[name]
        if here.shape[1:] != there.shape[1:] or here.dtype != there.dtype:
            raise UsageError(
                f"{source}: the training part of `{_name(name)}` has {here.dtype} examples of shape {here.shape[1:]}, "
                f"the test part {there.dtype} of shape {there.shape[1:]}; they must be the same"
            )


def _name(key: str) -> str:
    """A name in a foreign archive, on one line."""
    return shown(key)[1:-1]


def _names(keys: Iterable[str]) -> str:
    first = [_name(key) for key in itertools.islice(keys, _MOST_SHOWN + 1)]
    return ", ".join(first[:_MOST_SHOWN]) + (" and more" if len(first) > _MOST_SHOWN else "")
