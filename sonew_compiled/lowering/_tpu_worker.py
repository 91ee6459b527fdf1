"""XLA's compiler for TPUs, in a process of its own: `python -m sonew_compiled.lowering._tpu_worker FOLDER`.

It needs a process because `libtpu` logs to stderr, may end its process, and takes its settings from the environment.

FOLDER holds `request.json`, which `lowering/tpu.py` writes, and `NAME.stablehlo` for each function: a portable artifact
whose only public function is `@main`. The worker writes `NAME.xla`, the executable as
`jax.experimental.serialize_executable.serialize` gives it, and `figures.json`: XLA's figures by function.
An error is a last line `error: ...` on stderr.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import serialize_executable, topologies
from jax.sharding import SingleDeviceSharding

from sonew_compiled.xla import compile_artifact


def main(folder: Path) -> None:
    """Compiles every function of the request."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    topology = topologies.get_topology_desc(
        request["topology"], platform="tpu", chip_config_name=request["chip_config"]
    )
    sharding = SingleDeviceSharding(topology.devices[0])
    figures = {}
    for name, function in request["functions"].items():
        print(f"compile {name} for {request['topology']}", file=sys.stderr, flush=True)
        compiled = _compile((folder / f"{name}.stablehlo").read_bytes(), function, sharding)
        payload, inputs, outputs = serialize_executable.serialize(compiled)
        # The loader makes these trees again from the manifest.
        assert inputs == jax.tree.structure((tuple(range(len(function["inputs"]))), {})), inputs
        assert outputs == jax.tree.structure(tuple(range(len(function["outputs"])))), outputs
        (folder / f"{name}.xla").write_bytes(payload)
        figures[name] = _figures(compiled)
    (folder / "figures.json").write_text(json.dumps(figures), encoding="utf-8")


def _compile(artifact: bytes, function: dict[str, Any], sharding: SingleDeviceSharding) -> jax.stages.Compiled:
    inputs, outputs = (
        [
            jax.ShapeDtypeStruct(tuple(each["shape"]), jnp.dtype(each["dtype"]), sharding=sharding)
            for each in function[key]
        ]
        for key in ("inputs", "outputs")
    )
    donated = [index for index, each in enumerate(function["inputs"]) if each["donated"]]
    return compile_artifact(artifact, inputs, outputs, platform="tpu", donated=donated)


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
