"""The process that `trial` starts: says on stdout how far it came, or what it was refused with."""

from __future__ import annotations

import sys

import numpy as np

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.bundle import open_bundle
from sonew_compiled.runtime.device import open_device
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.manifest import FunctionSpec
from sonew_compiled.runtime.program import Program


def _call(program: Program, name: str, function: FunctionSpec) -> None:
    """Calls a function on zeros, and compares what it gives with what the manifest says.

    Raises:
      SonewError: it fails, or gives something else.
    """
    place = program.bundle.path / program.target.file
    try:
        zeros = {spec.name: np.zeros(spec.shape, as_dtype(spec.dtype)) for spec in function.inputs}
    except (MemoryError, ValueError):
        raise SonewError(f"{program.bundle.path} has a {name} with tensors beyond this machine's memory") from None
    results = program.call(name, {spec.name: program.upload(spec, zeros[spec.name]) for spec in function.inputs})
    for spec in function.outputs:
        shape = tuple(results[spec.name].shape)
        if spec.dtype not in program.target.stored_as and shape != spec.shape:
            raise SonewError(f"{place} gives {spec.name} of shape {list(shape)}, the manifest says {list(spec.shape)}")
        program.download(spec, results[spec.name])


def _main(bundle: str, device: str) -> None:
    print("started", flush=True)
    try:
        program = Program.load(open_bundle(bundle), open_device(device))
        print("loaded", flush=True)
        for name, function in program.manifest.functions.items():
            _call(program, name, function)
    except SonewError as error:
        print(f"refused {error}", flush=True)
    else:
        print("called", flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
