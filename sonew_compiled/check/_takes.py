"""The functions that take examples from a data set on the device, compared with NumPy."""

from __future__ import annotations

import math

import numpy as np

from sonew_compiled.check._compare import same_bits
from sonew_compiled.contract import LOOPED, takes_of
from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import Program
from sonew_compiled.runtime.dtypes import as_dtype

# Every byte is among the data.
_BYTES = 256


def wrong_take(program: Program) -> str:
    """The first of these functions that computes something else, in words; empty if all are right."""
    fields = {(spec.shape, spec.dtype): spec for name in LOOPED for spec in program.batch_fields(name).values()}
    for spec in fields.values():
        for dtype, name in takes_of(spec.shape, spec.dtype).items():
            if name not in program.manifest.takes:
                continue
            if not program.has_take(name):
                return f"lacks {name}"
            size = math.prod(spec.shape[1:])
            rows = max(3, math.ceil(_BYTES / size))
            data = np.arange(rows * size).reshape(rows, size).astype(as_dtype(dtype))
            indices = np.arange(spec.shape[0], dtype=np.int32)[::-1] * 7 % rows
            want = data[indices].reshape(spec.shape)
            if dtype != spec.dtype:
                want = np.divide(want, np.float32(255), dtype=np.float32)
            upload = program.device.upload
            try:
                got = program.download(spec, program.take(name, upload(data), upload(indices)))
            except SonewError as error:
                return f"fails in {name}: {error}"
            if not same_bits(got, want):
                return f"computes {name} wrongly"
    return ""
