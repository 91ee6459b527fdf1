"""The parts of a manifest: tensors, functions, files, and the executables with what they need."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sonew_compiled.runtime.dtypes import as_dtype


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A named tensor.

    Attributes:
      name: a path joined by `/`.
      shape: in elements.
      dtype: a NumPy or ml_dtypes name.
      role: its role in the function, one of `Role`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str

    @property
    def itemsize(self) -> int:
        """The bytes of an element."""
        return as_dtype(self.dtype).itemsize

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of the tensor."""
        return self.size * self.itemsize


@dataclass(frozen=True, kw_only=True)
class FunctionSpec:
    """An export of every executable of the bundle, with its arguments and results in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, kw_only=True)
class FileSpec:
    """A file of the bundle; `sha256` in hexadecimal, `size` in bytes."""

    sha256: str
    size: int

    @classmethod
    def of(cls, content: bytes) -> FileSpec:
        """The record of a file with this content."""
        return cls(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


@dataclass(frozen=True, kw_only=True)
class KernelSpec:
    """The assembler's figures of a GPU's kernel.

    Attributes:
      name: the name of its entry point.
      registers: the registers that a thread takes; vector registers if there are two kinds.
      spilled_bytes: the bytes that a thread keeps in memory, because there are not enough registers.
    """

    name: str
    registers: int
    spilled_bytes: int


@dataclass(frozen=True, kw_only=True)
class TpuFunctionSpec:
    """XLA's figures of the executable of one function on a TPU, from before it has run.

    Attributes:
      function: the name of the function.
      code_bytes: the bytes of machine code.
      argument_bytes: the bytes of all arguments on the device.
      output_bytes: the bytes of all results, including those in the arguments' buffers.
      aliased_bytes: the bytes of results in the buffers of arguments, which is state that is updated in place.
      temporary_bytes: the bytes of memory that the function needs besides.
      flops: the floating-point operations of a call, by XLA's estimate; 0 if it has none.
      bytes_accessed: the bytes read from and written to memory in a call, likewise.
    """

    function: str
    code_bytes: int
    argument_bytes: int
    output_bytes: int
    aliased_bytes: int
    temporary_bytes: int
    flops: int
    bytes_accessed: int


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The requirements of code on the machine that runs it.

    Attributes:
      name: the full name of its target, such as `cpu` or `cuda:sm_80`.
      driver: the kind of device, one of `Driver`.
      machine: the instruction set, as `platform.machine()` names it; empty if any will do.
      cpu: the processor that the code is for, as LLVM names it; empty for other kinds of device.
      cpu_features: flags of `/proc/cpuinfo` without which the code cannot run.
      device_names: lower-case words, one of which is in the driver's name of every device that runs the code; empty if
        any device will do, and for processors.
    """

    name: str
    driver: str
    machine: str = ""
    cpu: str = ""
    cpu_features: tuple[str, ...] = ()
    device_names: tuple[str, ...] = ()

    def needs(self) -> dict[str, Any]:
        """These attributes by name, without those of a subclass."""
        return {each.name: getattr(self, each.name) for each in fields(Needs)}


@dataclass(frozen=True, kw_only=True)
class TargetSpec(Needs):
    """An executable of the bundle.

    Attributes:
      file: its name inside the bundle.
      stored_as: for each dtype that the executable lacks, the dtype in its place: a vector of the same bytes, padded
        with zeros to a whole number.
      kernels: the kernels for ROCm, and for CUDA if its assembler was installed when the bundle was made; else empty.
      programs: the figures of each function for TPUs; else empty.
    """

    file: str
    stored_as: Mapping[str, str] = field(default_factory=dict)
    kernels: tuple[KernelSpec, ...] = ()
    programs: tuple[TpuFunctionSpec, ...] = ()
