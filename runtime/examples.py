"""A split of a data set that stays on the device if it fits, so that a batch is a list of indices.

The executable has functions that take the examples of a batch and convert them to the bits that the host would upload
(`sonew_compiled/contract.py`, `takes_of`). Between two steps the host then copies 4 bytes an example.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence

import numpy as np

from sonew_compiled.contract import LOOPED, Driver, takes_of
from sonew_compiled.errors import SonewError
from sonew_compiled.runtime._memory import physical_memory
from sonew_compiled.runtime.data import BoundData
from sonew_compiled.runtime.device import Buffer
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.manifest import TensorSpec
from sonew_compiled.runtime.program import Program

_LOG = logging.getLogger(__name__)

# A split stays on a processor's device if it takes at most this part of the machine's memory, of which it is a second
# copy, and on other devices up to this size: IREE does not say how much memory they have.
_PART, _MOST = 16, 1 << 30
# Code for devices without storage of bytes reads whole words.
_WORD = 4


class Examples:
    """The examples of a split, of which a function's inputs are made: on the device, or copied there batch by batch.

    Attributes:
      data: the split.
      is_resident: whether the examples are on the device. They are not if they are mapped or do not fit, or if the
        executable cannot take a field.
    """

    def __init__(self, program: Program, data: BoundData, *, copies: int = 1) -> None:
        """Copies the examples to the device if they can stay there.

        Args:
          program: the loaded executable.
          data: the split.
          copies: the number of processes of this machine that may each have a copy.
        """
        self.data = data
        self._program = program
        self._on_device = _on_device(program, data, copies)
        self.is_resident = bool(self._on_device)

    def __repr__(self) -> str:
        return f"Examples({self.data!r}, {'on' if self.is_resident else 'copied to'} {self._program.device.name})"

    def batch(self, indices: np.ndarray, *, function: str) -> dict[str, Buffer]:
        """The inputs of a function, by name, for the examples of these numbers."""
        if not self.is_resident:
            return self._program.upload_batch(self.data.take(indices), function=function)
        placed = self._program.device.upload(indices.astype(np.int32))
        return {
            spec.name: self._program.take(_take(spec, self._on_device[field][1]), self._on_device[field][0], placed)
            for field, spec in self._program.batch_fields(function).items()
        }


def _on_device(program: Program, data: BoundData, copies: int) -> dict[str, tuple[Buffer, str]]:
    """For each field of the batch, the examples on the device and their dtype; none if they cannot stay there."""
    fields: dict[str, list[TensorSpec]] = {}
    for function in LOOPED:
        for name, spec in program.batch_fields(function).items():
            fields.setdefault(name, []).append(spec)
    dtypes = {name: _dtype(program, specs, data.kept_dtypes(name)) for name, specs in fields.items()}
    if not all(dtypes.values()):
        return {}
    sizes = (math.prod(specs[0].shape[1:]) * as_dtype(dtypes[name]).itemsize for name, specs in fields.items())
    nbytes = data.examples * sum(sizes)
    if copies * nbytes > (physical_memory() // _PART if program.device.driver == Driver.LOCAL else _MOST):
        return {}
    try:
        placed = {name: (_upload(program, data.kept(name, dtype)), dtype) for name, dtype in dtypes.items()}
    except SonewError as error:
        _LOG.debug("batches are copied one by one: %s", error)
        return {}
    _LOG.debug("%s bytes of examples stay on %s", f"{nbytes:,}", program.device.name)
    return placed


def _dtype(program: Program, specs: Sequence[TensorSpec], dtypes: Iterable[str]) -> str:
    """The first of these dtypes from which the executable takes a field, for each function; empty if there is none."""
    return next((each for each in dtypes if all(program.has_take(_take(spec, each)) for spec in specs)), "")


def _take(spec: TensorSpec, dtype: str) -> str:
    """The function that takes a field from data of this dtype; empty if there can be none."""
    return takes_of(spec.shape, spec.dtype).get(dtype, "")


def _upload(program: Program, array: np.ndarray) -> Buffer:
    """The examples as a matrix; behind the last ones there may be more rows, to end with a whole word."""
    rows = array.reshape(len(array), -1)
    if rows.nbytes % _WORD:
        rows = np.pad(rows, ((0, -len(rows) % _WORD), (0, 0)))
    return program.device.upload(rows)
