"""Kernels that take more tensors or numbers than IREE's runtime passes.

IREE 3.13 compiles them, and its runtime refuses them when the executable is loaded or in the first call: more than 32
tensors in any kernel ("binding count 33 > 32"), more than 16 with the drivers for CUDA, HIP and Metal, and more than 64
numbers of 32 bits beside them. What a kernel takes is read from the files that the compiler writes of each executable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sonew_compiled.errors import SonewError
from sonew_compiled.lowering.targets import Target

_EXPORT = re.compile(rb"hal\.executable\.export public @(\S+) .*")
_TENSOR = b"#hal.pipeline.binding<"
_CONSTANTS = re.compile(rb"\bconstants = (\d+)")
_MOST_CONSTANTS = 64


def refuse_too_many(folder: Path, target: Target, *, what: str) -> None:
    """Refuses an executable that no runtime would run.

    Args:
      folder: where the compiler has written the sources or the configurations of the executable.
      target: the target that it was compiled for.
      what: names the module, such as `autoencoder with tridiag-sonew`.

    Raises:
      SonewError: a kernel takes too many tensors or numbers; with the kernel, its count and a remedy.
    """
    for kernel, tensors, constants in _kernels(folder):
        for count, most, kind in (
            (tensors, target.tensors, "tensors"),
            (constants, _MOST_CONSTANTS, "numbers beside its tensors"),
        ):
            if count > most:
                raise SonewError(
                    f"cannot compile {what} for target {target.name}: its kernel {kernel} takes {count} {kind}, and "
                    f"IREE's runtime passes {most}; compute fewer numbers at a time, with one optimizer for all "
                    "parameters, try another target (`sonew targets` lists them) or another optimizer"
                )


def _kernels(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Each kernel's name, and how many tensors and numbers it takes."""
    for path in sorted(folder.glob("*.mlir")):
        for found in _EXPORT.finditer(path.read_bytes()):
            constants = _CONSTANTS.search(found[0])
            yield found[1].decode(), found[0].count(_TENSOR), int(constants[1]) if constants else 0
