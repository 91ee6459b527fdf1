"""`Dataset`: training and test examples as arrays, and the checks that every source of them passes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from sonew_compiled.errors import UsageError

# The elements that a check with a temporary array takes at once: 4 MiB of booleans.
_CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Examples split into training and test; both have the same fields.

    Attributes:
      name: the user's name for it.
      train: by field name, arrays with the examples on axis 0; read-only, C-contiguous, in native byte order.
        MNIST has `image`, uint8 (n, 28, 28), and `label`, int32 (n,).
      test: likewise, the examples that are held out.
      fingerprint: SHA-256 in hexadecimal over the contents of the files read, unpacked where they are gzipped, or over
        samples of mapped ones; two runs with the same fingerprint saw the same data.
    """

    name: str
    train: Mapping[str, np.ndarray]
    test: Mapping[str, np.ndarray]
    fingerprint: str


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
        raise UsageError(f"{source} has {min(counts.values())} example(s); it needs at least {least}")


def split(fields: Mapping[str, np.ndarray], train: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The first `train` examples of every field, and the rest: views, without a copy."""
    return {k: v[:train] for k, v in fields.items()}, {k: v[train:] for k, v in fields.items()}


def hold_out(fields: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Splits off the last tenth as the test examples, rounded down but at least one."""
    count = len(next(iter(fields.values())))
    return split(fields, count - max(1, count // 10))


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
