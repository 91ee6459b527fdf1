"""The process that `trial` starts: says on stdout how far it came, or what it was refused with."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sonew_compiled.contract import INIT
from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.bundle import open_bundle
from sonew_compiled.runtime.device import Buffer, open_device
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.manifest import FunctionSpec
from sonew_compiled.runtime.program import Program


def _call(program: Program, name: str, function: FunctionSpec, state: Mapping[str, Buffer]) -> dict[str, Buffer]:
    """Calls a function on a state and zeros, and compares what it gives with what the manifest says.

    Raises:
      SonewError: it fails, or gives something else.
    """
    place = program.bundle.path / program.target.file
    try:
        rest = [spec for spec in function.inputs if spec.name not in state]
        zeros = {spec.name: program.upload(spec, np.zeros(spec.shape, as_dtype(spec.dtype))) for spec in rest}
    except (MemoryError, ValueError):
        raise SonewError(f"{program.bundle.path} has a {name} with tensors beyond this machine's memory") from None
    results = program.call(name, {**state, **zeros})
    for spec in function.outputs:
        shape = tuple(results[spec.name].shape)
        if spec.dtype not in program.target.stored_as and shape != spec.shape:
            raise SonewError(f"{place} gives {spec.name} of shape {list(shape)}, the manifest says {list(spec.shape)}")
        program.download(spec, results[spec.name])
    return results


def _main(bundle: str, device: str) -> None:
    print("started", flush=True)
    try:
        # This process is the trial.
        program = Program.load(replace(open_bundle(bundle), is_trusted=True), open_device(device))
        print("loaded", flush=True)
        functions = program.manifest.functions
        # The code makes the state before memory of the size that the manifest claims is taken.
        state = _call(program, INIT, functions[INIT], {}) if INIT in functions else {}
        for name in [each for each in functions if each != INIT]:
            results = _call(program, name, functions[name], state)
            # A step writes into the state.
            state = {each: results.get(each, buffer) for each, buffer in state.items()}
    except SonewError as error:
        print(f"refused {error}", flush=True)
    else:
        print("called", flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
