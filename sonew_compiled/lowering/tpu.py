"""StableHLO to TPU executables, through XLA's compiler in libtpu: one for each function, in one file of the bundle."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

from sonew_compiled import passes
from sonew_compiled.lowering.diagnostics import compile_error
from sonew_compiled.lowering.process import run_to_end
from sonew_compiled.lowering.scratch import scratch_folder
from sonew_compiled.lowering.targets import Target
from sonew_compiled.runtime.manifest import TpuFunctionSpec

# The machine has no TPU. libtpu must not look for one, nor for the service that describes Google's machines.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "0",
    "JAX_ENABLE_X64": "1",  # the types of the module, whatever they are
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}

# The earliest date of a zip archive, so that the same input gives the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def lower_tpu(stablehlo: bytes, target: Target, *, what: str) -> tuple[bytes, tuple[TpuFunctionSpec, ...]]:
    """Compiles every export of a module for a TPU.

    Args:
      stablehlo: the module, a portable artifact; arguments that `wire-donation` gave up are donated to XLA.
      target: the target to compile for, one of those of `libtpu`.
      what: names the module in errors, such as `autoencoder with tridiag-sonew`.

    Returns:
      A zip archive with `NAME.xla` for each export, which `load_tpu_program` loads, and XLA's figures for each.

    Raises:
      SonewError: the compiler refused it; see `compile_error`.
    """
    with scratch_folder() as folder:
        names = _write_request(folder, stablehlo, target)
        command = [sys.executable, "-m", "sonew_compiled.lowering._tpu_worker", str(folder)]
        environment = os.environ | _ENVIRONMENT | {"TMPDIR": str(folder), "TPU_LOG_DIR": str(folder)}
        process = run_to_end(command, folder=folder, environment=environment)
        if process.returncode == 0:
            figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
            described = tuple(TpuFunctionSpec(function=name, **figures[name]) for name in names)
            return _archive({f"{name}.xla": (folder / f"{name}.xla").read_bytes() for name in names}), described
        raise compile_error(compiler="libtpu", process=process, folder=folder, target=target, what=what)


def _write_request(folder: Path, stablehlo: bytes, target: Target) -> list[str]:
    """Writes the worker's input files, and returns the names of the exports."""
    functions = {}
    signatures = passes.signatures(passes.from_portable_artifact(stablehlo))
    for name, signature in signatures.items():
        module = passes.from_portable_artifact(stablehlo)
        passes.run_pipeline(module, [passes.parse_pass(f"select-export:name={name}")])
        (folder / f"{name}.stablehlo").write_bytes(passes.to_portable_artifact(module))
        functions[name] = {
            "inputs": [_described(value) | {"donated": value.donated} for value in signature.inputs],
            "outputs": [_described(value) for value in signature.outputs],
        }
    request = {"topology": target.topology, "chip_config": target.chip_config, "functions": functions}
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    return list(signatures)


def _described(value: passes.Value) -> dict[str, Any]:
    return {"shape": value.shape, "dtype": value.dtype}


def _archive(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return stream.getvalue()
