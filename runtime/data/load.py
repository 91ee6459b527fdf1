"""Finds the data set that the user named."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.data import arrays, mapped, mnist
from sonew_compiled.runtime.data.dataset import Dataset
from sonew_compiled.runtime.shown import argument

_LOG = logging.getLogger(__name__)

_ACCEPTED = f"accepted are {mnist.EMBEDDED} (comes with the package), {mnist.FULL} (the full set) or {arrays.ACCEPTED}"


def load_dataset(name_or_path: str, *, data_dir: Path | None = None, least: int = 2) -> Dataset:
    """Loads a data set.

    Args:
      name_or_path: one of
        `mnist-10k`: MNIST's 10,000 test images, which come with the package; 9,000 of them to train on.
        `mnist`: the full set, from `data_dir`, `$SONEW_DATA` or the user's cache; its files are verified.
        a `.npy` file: the field `image`.
        a `.npz` file: `train_<field>` and `test_<field>`; or `x_train`, `y_train`, `x_test`, `y_test` for the fields
          `image` and `label`, or `target` where `y` has floats; or plain field names.
        a folder of `.npy` files of the same names, which are mapped (`mapped.py`).
        an IDX file of images, `*-idx3-ubyte` or `*-idx3-ubyte.gz`: the field `image`.
        A file without test examples has its last tenth held out, at least one example; `Dataset.note` says so.
      data_dir: the folder to look for `mnist` in first.
      least: the fewest examples of a file that does not tell test examples apart; a single one is held out.

    Raises:
      UsageError: there is no such data set or file, or its contents are of a kind that cannot be trained on.
      SonewError: a file is missing, cannot be read, or is truncated or corrupt.
    """
    dataset = _load(name_or_path, data_dir, least)
    _LOG.debug("data set %s: %s to train on, %s to test", dataset.name, *map(_examples, (dataset.train, dataset.test)))
    return dataset


def _examples(split: Mapping[str, np.ndarray]) -> str:
    return f"{len(next(iter(split.values()), ())):,}"


def _load(name_or_path: str, data_dir: Path | None, least: int) -> Dataset:
    if name_or_path == mnist.EMBEDDED:
        return mnist.load_embedded()
    if name_or_path == mnist.FULL:
        return mnist.load_full(data_dir)
    path = Path(name_or_path)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:
        raise SonewError(f"cannot read {name_or_path} ({error.strerror or error}); {_ACCEPTED}") from None
    load = arrays.reader(path)
    if is_folder and name_or_path and _has_arrays(path):
        return arrays.load_folder(name_or_path, path, least)
    if is_folder and name_or_path:
        folder = argument(name_or_path)
        raise UsageError(
            f"{name_or_path} is a folder without .npy files; for the MNIST files in it: "
            f"--data mnist --data-dir {folder}"
        )
    if not is_file:
        kind = "no file" if load else "no data set or file"
        raise UsageError(f"there is {kind} `{name_or_path}`; {_ACCEPTED}")
    if load is None:
        raise UsageError(f"{name_or_path} is not a kind of file that is read; {_ACCEPTED}")
    return load(name_or_path, path, least)


def _has_arrays(folder: Path) -> bool:
    try:
        return bool(mapped.mapped_files(folder))
    except OSError as error:
        raise SonewError(f"cannot read {folder} ({error.strerror or error}); {_ACCEPTED}") from None
