"""The measured limits of the machine: the bandwidth of a copy and the rate of a float32 matrix product.

On the processor NumPy copies arrays much larger than any cache, a piece of them on every thread. The bandwidth counts
the bytes read and those written. The product is that of NumPy's BLAS on all its threads. On other devices both are
functions of a small IREE module: a negation and a product.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sonew_compiled.bench._machine import threads
from sonew_compiled.bench._pairs import timed
from sonew_compiled.contract import Driver, Role
from sonew_compiled.lowering.iree import lower_iree
from sonew_compiled.lowering.targets import resolve_target
from sonew_compiled.runtime import Bundle, Device, Program, open_device
from sonew_compiled.runtime.manifest import FileSpec, FunctionSpec, Manifest, TargetSpec, TensorSpec

_COPY_ELEMENTS = 32 << 20
_PRODUCT_SIDE = 2048
_REPEATS = 7

_MODULE = """
func.func @copy(%x: tensor<{n}xf32>) -> tensor<{n}xf32> {{
  %y = stablehlo.negate %x : tensor<{n}xf32>
  return %y : tensor<{n}xf32>
}}
func.func @product(%a: tensor<{m}x{m}xf32>, %b: tensor<{m}x{m}xf32>) -> tensor<{m}x{m}xf32> {{
  %c = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0]
      : (tensor<{m}x{m}xf32>, tensor<{m}x{m}xf32>) -> tensor<{m}x{m}xf32>
  return %c : tensor<{m}x{m}xf32>
}}
"""


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """Measured limits.

    Attributes:
      copy_bytes_per_second: the bytes read and written in a second, in the best of several copies.
      flops_per_second: the rate of a float32 matrix product, the best of several.
      how: the method of measurement, in words.
    """

    copy_bytes_per_second: float
    flops_per_second: float
    how: str

    def to_json(self) -> dict[str, Any]:
        """The limits as the fields of a row."""
        return asdict(self)


class Copy:
    """A copy on all threads, which moves `2 * 4 * elements` bytes at each call."""

    def __init__(self, elements: int = _COPY_ELEMENTS) -> None:
        self._source = np.ones(elements, np.float32)
        self._target = np.zeros(elements, np.float32)
        self._pool = ThreadPoolExecutor(threads())
        bounds = [elements * index // threads() for index in range(threads() + 1)]
        self._pieces = [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
        self.bytes = 2 * self._source.nbytes

    def __call__(self) -> None:
        """Copies once."""
        list(self._pool.map(lambda piece: np.copyto(self._target[piece], self._source[piece]), self._pieces))


def measure_limits(target: str, device: str) -> dict[str, Any]:
    """The task of `measure_roofline` for a device by name."""
    return measure_roofline(open_device(device), target).to_json()


def measure_roofline(device: Device, target: str) -> Roofline:
    """Measures a device. `target` is one that it runs; unless it is a processor, a module is compiled for it."""
    if device.driver == Driver.LOCAL:
        copy = Copy()
        a = np.ones((_PRODUCT_SIDE, _PRODUCT_SIDE), np.float32)
        c = np.empty_like(a)
        return Roofline(
            copy_bytes_per_second=copy.bytes / _best(copy),
            flops_per_second=2.0 * _PRODUCT_SIDE**3 / _best(lambda: np.matmul(a, a, out=c)),
            how=f"NumPy's copy of {copy.bytes // 2 >> 20} MiB on {threads()} threads and float32 product of side "
            f"{_PRODUCT_SIDE}",
        )
    return _measure_device(device, target, elements=_COPY_ELEMENTS, side=_PRODUCT_SIDE // 2)


def _measure_device(device: Device, target: str, *, elements: int, side: int) -> Roofline:
    resolved = resolve_target(target)
    executable = lower_iree(_MODULE.format(n=elements, m=side).encode(), resolved, what="the roofline's module")
    vector, matrix = (
        TensorSpec(name=name, shape=shape, dtype="float32", role=Role.BATCH)
        for name, shape in (("x", (elements,)), ("a", (side, side)))
    )
    other = TensorSpec(name="b", shape=(side, side), dtype="float32", role=Role.BATCH)
    with tempfile.TemporaryDirectory(prefix="sonew-") as scratch:
        program = load_executable(
            Path(scratch),
            executable,
            TargetSpec(name=target, file="executable.vmfb", driver=resolved.driver),
            {
                "copy": FunctionSpec(inputs=(vector,), outputs=(vector,)),
                "product": FunctionSpec(inputs=(matrix, other), outputs=(matrix,)),
            },
            device,
        )
        x, a = device.upload(np.ones(elements, np.float32)), device.upload(np.ones((side, side), np.float32))
        return Roofline(
            copy_bytes_per_second=8.0 * elements / _best(lambda: program.call("copy", {"x": x})),
            flops_per_second=2.0 * side**3 / _best(lambda: program.call("product", {"a": a, "b": a})),
            how=f"an IREE module's negation of {4 * elements >> 20} MiB and float32 product of side {side}",
        )


def load_executable(
    folder: Path, executable: bytes, target: TargetSpec, functions: dict[str, FunctionSpec], device: Device
) -> Program:
    """Loads an executable without a bundle, with these functions; its file is written to `folder`."""
    (folder / target.file).write_bytes(executable)
    files = {target.file: FileSpec(sha256=hashlib.sha256(executable).hexdigest(), size=len(executable))}
    manifest = Manifest(
        model="benchmark",
        optimizer={},
        defaults={},
        versions={},
        functions=functions,
        targets=(target,),
        files=files,
    )
    return Program.load(Bundle(path=folder, manifest=manifest, is_trusted=True), device)


def _best(call: Callable[[], object]) -> float:
    """The least time of several calls, in seconds, after one call that does not count."""
    call()
    return min(timed(call) for _ in range(_REPEATS))
