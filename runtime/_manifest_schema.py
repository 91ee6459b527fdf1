"""The schema of `manifest.json`: kinds, counts and lengths, which are checked before the manifest is used."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sonew_compiled.contract import Role
from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.schema import (
    SCALAR,
    Check,
    Described,
    Unfit,
    integer,
    listed,
    mapped,
    nullable,
    number,
    record,
    schema_of,
    text,
)
from sonew_compiled.runtime.shown import shown

LARGEST = 32 << 20
"""The most bytes of the file."""

# The most elements of a tensor: more than any memory holds, and few enough for exact sizes in bytes.
_MOST_ELEMENTS = 2**48

_NAME = text(1_000, empty=False)
_WORD = text(200)
_FILE_NAME = text(255, empty=False)
_PATTERNS = listed(_NAME, 1_000)


def _dtype(value: object, place: str) -> str:
    name: str = _WORD(value, place)
    try:
        as_dtype(name)
    except SonewError as error:
        raise Unfit(f"{place}: {error}") from None
    return name


def _shape(value: object, place: str) -> list[int]:
    shape: list[int] = listed(integer(), 32)(value, place)
    if math.prod(shape) > _MOST_ELEMENTS:
        raise Unfit(f"{place} is {shown(shape)}, of more than {_MOST_ELEMENTS:,} elements")
    return shape


def _distinct(tensors: Check) -> Check:
    """A list of tensors with distinct names."""

    def check(value: object, place: str) -> object:
        checked = tensors(value, place)
        names = [tensor["name"] for tensor in checked]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise Unfit(f"{place} has {shown(twice)} twice")
        return checked

    return Described(check, schema_of(tensors))


def _role(value: object, place: str) -> str:
    role: str = _WORD(value, place)
    if role not in set(Role):
        raise Unfit(f"{place} is {shown(role)}, not one of {', '.join(Role)}")
    return role


_DTYPE = Described(_dtype, schema_of(_WORD))
_SHAPE = Described(_shape, schema_of(listed(integer(), 32)))
_ROLE = Described(_role, {"enum": [str(role) for role in Role]})
_TENSOR_1: dict[str, Check] = {"name": _NAME, "shape": _SHAPE, "dtype": _DTYPE}
_TENSOR: dict[str, Check] = {**_TENSOR_1, "role": _ROLE}
_KERNEL = record({"name": _NAME, "registers": integer(), "spilled_bytes": integer()}, strict=True)
_COUNTS = ("code", "argument", "output", "aliased", "temporary")
_TPU_FUNCTION = record(
    {
        "function": _NAME,
        **{f"{each}_bytes": integer() for each in _COUNTS},
        "flops": integer(),
        "bytes_accessed": integer(),
    },
    strict=True,
)
_TARGET = record(
    {"name": text(200, empty=False), "file": _FILE_NAME, "driver": _WORD},
    {
        "machine": _WORD,
        "cpu": _WORD,
        "cpu_features": listed(_WORD, 1_000),
        "device_names": listed(_WORD, 1_000),
        "stored_as": mapped(_DTYPE, 20, key=_DTYPE),
        "kernels": listed(_KERNEL, 5_000),
        "programs": listed(_TPU_FUNCTION, 100),
    },
    strict=True,
)

_RANGES = listed(listed(integer(), 2), 10_000)

_LATER = {"classes": mapped(integer(1), 1_000, key=_NAME), "setting_limits": mapped(nullable(number()), 100)}


def _manifest(tensor: Mapping[str, Check], required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    tensors = _distinct(listed(record(tensor, strict=True), 10_000))
    return record(
        {
            "format_version": integer(),
            "model": _NAME,
            "optimizer": mapped(SCALAR, 100),
            "precision": _WORD,
            "defaults": mapped(SCALAR, 20),
            "versions": mapped(_WORD, 50),
            "functions": mapped(record({"inputs": tensors, "outputs": tensors}, strict=True), 100, key=_NAME),
            "targets": listed(_TARGET, 200),
            "files": mapped(
                record({"sha256": text(64), "size": integer()}, strict=True), 1_000, key=text(255, empty=False)
            ),
            **required,
        },
        optional,
    )


MANIFEST = _manifest(
    _TENSOR,
    _LATER,
    {
        "unit": _WORD,
        "starts_from": mapped(text(1_000), 10_000, key=_NAME),
        "exchange": _WORD,
        "step": record({}, {"no_decay": _PATTERNS, "freeze": _PATTERNS}, others=SCALAR),
        "init": _WORD,
        "takes": listed(_NAME, 1_000),
        "bucket_reads": mapped(_RANGES, 100, key=_NAME),
    },
)
"""The check of a whole manifest; it drops fields that this runtime does not know."""

MANIFEST_1 = _manifest(_TENSOR_1, {}, _LATER)
"""The check of a manifest of format version 1."""
