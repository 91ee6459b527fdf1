"""Profiles a compiled step by kind of dispatch, with IREE's own profiler.

    sonew compile -o autoencoder.bundle
    python tools/profile_step.py autoencoder.bundle --label after --output profile.jsonl

The bundle's code for this machine's processor runs on all cores. A line of JSON is appended for each run of the tool.
"""

from __future__ import annotations

import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from sonew_compiled.runtime import open_bundle
from sonew_compiled.runtime.manifest import TensorSpec

STEP = "train_step"
STEPS = 20

# The runtime does the same in its own process. Without it, each step would map its memory anew.
KEEP_MEMORY = {"GLIBC_TUNABLES": f"glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold={1 << 40}"}

# The kinds of dispatches, by the text in IREE's names after the function's name and a number.
KINDS = {
    "matmul_like": "matrix products",
    "_encoding": "packing of their operands",
    "elementwise": "elementwise",
    "reduction": "reductions",
    "rows_": "kernels over rows",
}
ELEMENT_TYPES = {"float32": "f32", "bfloat16": "bf16", "int32": "i32", "uint8": "ui8"}


def profile(module: Path, inputs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    """The dispatches of some steps on made-up inputs, each with its count and its total nanoseconds."""
    with tempfile.TemporaryDirectory() as scratch:
        trace = Path(scratch, "trace")
        run = [_tool("iree-benchmark-module"), f"--module={module}", "--device=local-task", f"--function={STEP}"]
        run += [f"--input={_literal(spec)}" for spec in inputs] + [f"--benchmark_min_time={STEPS}x"]
        run += ["--device_profiling_mode=host-execution,queue-events", f"--device_profiling_output={trace}"]
        subprocess.run(run, check=True, capture_output=True, env=os.environ | KEEP_MEMORY)
        shown = subprocess.run(
            [_tool("iree-profile"), "dispatch", "--format=jsonl", str(trace)],
            check=True,
            capture_output=True,
            text=True,
        )
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    return [row for row in rows if row["type"] == "host_dispatch_group"]


def summary(dispatches: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The milliseconds and dispatches of a step, by kind."""
    kinds: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in (*KINDS.values(), "others")}
    # The rarest dispatch occurs once in a step.
    steps = min(row["count"] for row in dispatches)
    for row in dispatches:
        name = re.sub(rf"^{STEP}_dispatch_\d+_", "", row["key"])
        kind = next((kind for start, kind in KINDS.items() if name.startswith(start)), "others")
        kinds[kind] += collections.Counter(nanoseconds=row["total_ns"], dispatches=row["count"])
    return {
        kind: {"milliseconds": sums["nanoseconds"] / steps / 1e6, "dispatches": sums["dispatches"] / steps}
        for kind, sums in kinds.items()
        if sums
    }


def _literal(spec: TensorSpec) -> str:
    kind = ELEMENT_TYPES[spec.dtype]
    return "x".join([*map(str, spec.shape), kind]) + ("=1" if kind.endswith(("i32", "ui8")) else "=0.01")


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--label", required=True, help="What the row is called.")
@click.option("--output", type=click.Path(path_type=Path), help="File of JSON lines to append to.")
def main(bundle: Path, label: str, output: Path | None) -> None:
    """Profile the step of a bundle, and print and record its time by kind of dispatch."""
    manifest = open_bundle(bundle).manifest
    target = next(target for target in manifest.targets if target.driver == "local")
    kinds = summary(profile(bundle / target.file, manifest.functions[STEP].inputs))
    total = sum(each["milliseconds"] for each in kinds.values())
    for kind, each in kinds.items():
        share = each["milliseconds"] / total
        click.echo(f"{kind:28} {each['milliseconds']:7.2f} ms  {share:6.1%}  {each['dispatches']:5.0f} dispatches")
    if output is not None:
        row = {
            "label": label,
            "precision": manifest.precision,
            "target": target.name,
            "cpu": target.cpu,
            "kinds": kinds,
        }
        with output.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
