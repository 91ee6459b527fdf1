"""`Dataset`: training and test examples as arrays, and the checks that every source of them passes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from sonew_compiled.errors import UsageError, counted
from sonew_compiled.runtime.shown import shown

# The elements that a check with a temporary array takes at once: 4 MiB of booleans.
_CHUNK_ELEMENTS = 1 << 22
# The examples that show whether images are bytes in another dtype.
_LOOKED_AT = 64
# Names of arrays that an error shows.
_MOST_SHOWN = 8


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Dataset:
    """Examples split into training and test; both have the same fields.

    Attributes:
      name: the name that the user gave.
      train: by field name, arrays with the examples on axis 0; read-only, C-contiguous, in native byte order.
        MNIST has `image`, uint8 (n, 28, 28), and `label`, int32 (n,).
      test: the held-out examples, in the same form.
      fingerprint: SHA-256 in hexadecimal over the contents of the files read, unpacked where they are gzipped, or over
        samples of mapped ones; two runs with the same fingerprint saw the same data.
      note: a line for the user, such as how many examples were held out; may be empty.
    """

    name: str
    train: Mapping[str, np.ndarray]
    test: Mapping[str, np.ndarray]
    fingerprint: str
    note: str = ""

    @classmethod
    def from_arrays(
        cls, train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray] | None = None, *, name: str = "arrays"
    ) -> Dataset:
        """A data set from arrays in memory.

        Args:
          train: by field name, the examples on axis 0, of a boolean, integer or floating-point dtype. Contiguous arrays
            are not copied: do not change them.
          test: examples with the same fields, shapes and dtypes; by default the last tenth of `train` is held out.
          name: the name in messages and checkpoints.

        Raises:
          UsageError: an array has another dtype, holds NaN or infinity, or does not fit the others.
        """
        splits = [train] if test is None else [train, test]
        found = [
            {field: checked(field, np.asarray(array), source=f"{name}: `{field}`") for field, array in split.items()}
            for split in splits
        ]
        if not train:
            raise UsageError(f"{name} has no fields; give at least one array")
        digest = hashlib.sha256()
        for fields in found:
            for field, array in sorted(fields.items()):
                digest.update(f"{field}\n{array.dtype.str}\n{array.shape}\n".encode())
                digest.update(array.reshape(-1).view(np.uint8).data)
            digest.update(b"\n")
        if test is None:
            return held_out(name, found[0], digest.hexdigest(), source=name)
        check_divided(*found, source=name)
        return cls(name=name, train=found[0], test=found[1], fingerprint=digest.hexdigest())

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user: `note`, and what the values look like.

        Images of bytes are often saved as floating-point numbers. Nothing scales these, and a loss that expects [0, 1]
        takes them without an error.
        """
        said = [self.note] if self.note else []
        image = self.train.get("image")
        if image is not None and image.dtype.kind == "f":
            some = image[:_LOOKED_AT]
            if some.size and 1 < some.max() <= 255 and some.min() >= 0 and (some == np.floor(some)).all():
                said.append(
                    f"{self.name}: `image` holds whole numbers up to {some.max():g} as {image.dtype}, which are taken "
                    "as they are; uint8 would be divided by 255"
                )
        return tuple(said)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name} {array.dtype}{list(array.shape[1:])}" for name, array in self.train.items())
        counts = [len(next(iter(split.values()), ())) for split in (self.train, self.test)]
        return f"Dataset({self.name}: {fields}; {counted(counts[0], 'example')} to train on, {counts[1]} to test on)"


def fingerprint(digests: Iterable[str]) -> str:
    """The fingerprint of a data set from the SHA-256 (hexadecimal) of each of its files, in the order read."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def checked(field: str, array: np.ndarray, *, source: str) -> np.ndarray:
    """The array as a field of a data set: read-only, C-contiguous, in native byte order.

    Args:
      field: the field's name; `label` must be integer.
      array: any shape with the examples on axis 0, of a boolean, integer or floating-point dtype.
      source: names the array in errors.

    Raises:
      UsageError: it has no axis of examples, is of another dtype, or holds a value that is not finite; the values of a
        mapped file are not looked at.
    """
    if array.ndim == 0:
        raise UsageError(f"{source} is a single value; a field needs the examples on its first axis")
    accepted = "iu" if field == "label" else "biuf"
    if array.dtype.kind not in accepted:
        others = "an integer or floating-point dtype (float16, 32, 64), or booleans"
        kinds = "an integer dtype" if field == "label" else others
        raise UsageError(f"{source} has dtype {array.dtype}; `{field}` needs {kinds}: convert it before saving")
    if isinstance(array, np.memmap):  # is so already, and is looked at batch by batch
        return array
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    if array.dtype.kind == "f":
        _check_finite(array, source)
    array.setflags(write=False)
    return array


def check_lengths(fields: Mapping[str, np.ndarray], *, least: int, source: str) -> None:
    """Checks that all fields have the same number of examples, and at least `least` of them.

    Raises:
      UsageError: they do not.
    """
    counts = {name: len(array) for name, array in fields.items()}
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UsageError(f"{source} has fields of different lengths ({listed}); each needs one entry per example")
    if min(counts.values()) < least:
        raise UsageError(f"{source} has {counted(min(counts.values()), 'example')}; it needs at least {least}")


def split(fields: Mapping[str, np.ndarray], train: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The first `train` examples of every field, and the rest: views, without a copy."""
    return {k: v[:train] for k, v in fields.items()}, {k: v[train:] for k, v in fields.items()}


def hold_out(fields: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Splits off the last tenth as the test examples, rounded down but at least one."""
    count = len(next(iter(fields.values())))
    return split(fields, count - max(1, count // 10))


def held_out(name: str, fields: Mapping[str, np.ndarray], digest: str, *, source: str, least: int = 2) -> Dataset:
    """The data set of examples without a test split: the last tenth is held out.

    Args:
      name: the name of the data set.
      fields: checked arrays.
      digest: the fingerprint.
      source: names the data in errors.
      least: the fewest examples that are accepted.

    Raises:
      UsageError: there are fewer, or the fields have different lengths.
    """
    check_lengths(fields, least=least, source=source)
    train, test = hold_out(fields)
    count, total = (len(next(iter(split.values()))) for split in (test, fields))
    held = f"the last {count:,} of its {counted(total, 'example')} {'is' if count == 1 else 'are'} held out"
    note = f"{source} has no test examples of its own: {held}"
    return Dataset(name=name, train=train, test=test, fingerprint=digest, note=note)


def check_divided(train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray], *, source: str) -> None:
    """Checks that both splits have the same fields, of one length, of the same shapes and dtypes.

    Raises:
      UsageError: they do not.
    """
    if train.keys() != test.keys():
        alone = names_shown(sorted(train.keys() ^ test.keys()))
        raise UsageError(f"{source} has {alone} in only one of the training and test parts; each field must be in both")
    for name in train:
        here, there = train[name], test[name]
        if here.shape[1:] != there.shape[1:] or here.dtype != there.dtype:
            raise UsageError(
                f"{source}: the training part of `{name_shown(name)}` has {here.dtype} examples of shape "
                f"{here.shape[1:]}, the test part {there.dtype} of shape {there.shape[1:]}; they must be the same"
            )
    check_lengths(train, least=1, source=f"{source}, training part,")
    check_lengths(test, least=1, source=f"{source}, test part,")


def name_shown(key: str) -> str:
    """A name in a foreign archive, on one line."""
    return shown(key)[1:-1]


def names_shown(keys: Iterable[str]) -> str:
    """Several, of which the first are shown."""
    first = [name_shown(key) for key in itertools.islice(keys, _MOST_SHOWN + 1)]
    return ", ".join(first[:_MOST_SHOWN]) + (" and more" if len(first) > _MOST_SHOWN else "")


def _check_finite(array: np.ndarray, source: str) -> None:
    rows = max(1, _CHUNK_ELEMENTS * len(array) // max(1, array.size))
    for start in range(0, len(array), rows):
        chunk = array[start : start + rows]
        finite = np.isfinite(chunk)
        if not finite.all():
            where = np.argwhere(~finite)[0]
            raise UsageError(
                f"{source} holds {chunk[tuple(where)]} in example {start + where[0]}; every value must be finite: "
                "replace or drop it before saving"
            )
