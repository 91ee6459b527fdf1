"""XLA's compiler for TPUs, in a process of its own: `python -m sonew_compiled.lowering._tpu_worker FOLDER`.

`libtpu` logs to stderr, may end its process, and takes its settings from the environment, as `iree-compile` does not.

FOLDER holds `request.json`, whose fields are those of `lowering/tpu.py`, and `NAME.stablehlo` for every
program: a portable artifact with the one public function `@main`. The worker writes `NAME.xla`, what
`jax.experimental.serialize_executable.serialize` makes of the executable, and `report.json`: XLA's figures by program.
An error is a last line `error: ...` on stderr.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jax.experimental import serialize_executable, topologies
from jax.sharding import SingleDeviceSharding

# Left to itself XLA drops a rounding that is widened again at once, and so would compute in other numbers than the
# module says.
_OPTIONS: dict[str, str | bool] = {"xla_allow_excess_precision": False}


def main(folder: Path) -> None:
    """Compiles every program of the request."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    topology = topologies.get_topology_desc(
        request["topology"], platform="tpu", chip_config_name=request["chip_config"]
    )
    sharding = SingleDeviceSharding(topology.devices[0])
    report = {}
    for name, program in request["programs"].items():
        print(f"compile {name} for {request['topology']}", file=sys.stderr, flush=True)
        compiled = _compile((folder / f"{name}.stablehlo").read_bytes(), program, sharding)
        payload, inputs, outputs = serialize_executable.serialize(compiled)
        # The loader makes the trees anew from the manifest.
        assert inputs == jax.tree.structure((tuple(range(len(program["inputs"]))), {})), inputs
        assert outputs == jax.tree.structure(tuple(range(len(program["outputs"])))), outputs
        (folder / f"{name}.xla").write_bytes(payload)
        report[name] = _figures(compiled)
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


def _compile(artifact: bytes, program: dict[str, Any], sharding: SingleDeviceSharding) -> jax.stages.Compiled:
    inputs = [
        jax.ShapeDtypeStruct(tuple(each["shape"]), jnp.dtype(each["dtype"]), sharding=sharding)
        for each in program["inputs"]
    ]

    def stand_in(*_: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros(each["shape"], each["dtype"]) for each in program["outputs"])

    # JAX compiles what it has exported. This is an export of the right signature, with our module in it.
    exported = export.export(jax.jit(stand_in, keep_unused=True), platforms=["tpu"])(*inputs)
    exported = dataclasses.replace(exported, mlir_module_serialized=artifact)

    def call(*arguments: jax.Array) -> tuple[jax.Array, ...]:
        results: tuple[jax.Array, ...] = exported.call(*arguments)
        return results

    donated = tuple(index for index, each in enumerate(program["inputs"]) if each["donated"])
    lowered = jax.jit(call, donate_argnums=donated, keep_unused=True).lower(*inputs)
    return lowered.compile(compiler_options=_OPTIONS)


def _figures(compiled: jax.stages.Compiled) -> dict[str, int]:
    memory: Any = compiled.memory_analysis()
    cost: dict[str, float] = compiled.cost_analysis() or {}
    return {
        "code_bytes": memory.generated_code_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "aliased_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "flops": max(0, round(cost.get("flops", 0))),
        "bytes_accessed": max(0, round(cost.get("bytes accessed", 0))),
    }


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except Exception as error:
        traceback.print_exc()
        print("error:", " ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        sys.exit(1)
