"""The dtypes of manifests and tensor files, by name."""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.shown import shown

_PLAIN = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
)
_EXTENDED = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")


@cache
def as_dtype(name: str) -> np.dtype:
    """The dtype of this name in NumPy or ml_dtypes.

    Raises:
      SonewError: there is no such dtype.
    """
    if name not in (*_PLAIN, *_EXTENDED):
        raise SonewError(f"this runtime has no dtype {shown(name)}: upgrade sonew-compiled, or compile again")
    return np.dtype(getattr(ml_dtypes, name) if name in _EXTENDED else name)


def is_floating(dtype: np.dtype) -> bool:
    """Whether the dtype is a floating-point one, of NumPy or of ml_dtypes."""
    return np.issubdtype(dtype, np.floating) or dtype.name in _EXTENDED
