"""The structure of an update on GPUs, which cannot run here: dispatches, copies, scratch memory, registers."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from sonew_compiled import passes
from sonew_compiled.lowering.lower import adapt, lower
from sonew_compiled.lowering.targets import find_ptxas, iree_compile, resolve_target
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.trace import trace_update

SHAPE = (1000, 784)
GPUS = ("cuda:sm_80", "rocm:gfx942")


def update(name: str) -> bytes:
    """The update of one weight."""
    optimizer = optimizer_factory(optimizer_settings(name))
    module = passes.parse(trace_update(init=lambda key: {"w": jnp.zeros(SHAPE)}, optimizer=optimizer))
    passes.run_pipeline(module)
    return passes.to_portable_artifact(module)


def schedule(name: str, target_name: str, folder: Path) -> dict[str, Any]:
    """IREE's statistics of the work that it schedules, for `init` and `train_step` together."""
    target = resolve_target(target_name)
    source, statistics = folder / "update.mlir", folder / "statistics.json"
    source.write_bytes(adapt(update(name), target, what=name))
    command = [iree_compile(), str(source), "--iree-input-type=stablehlo", *target.flags, "--compile-to=stream"]
    command += [f"--iree-scheduling-dump-statistics-file={statistics}", "--iree-scheduling-dump-statistics-format=json"]
    subprocess.run([*command, "-o", str(folder / "out")], check=True, capture_output=True)
    work: dict[str, Any] = json.loads(statistics.read_text(encoding="utf-8"))["stream-aggregate"]["execution"]
    return work


# If shifts were copied: 16 and 90 dispatches, 20 and 92 copies, 11 and 38 matrices. If state were read where it is
# stored: 3 and 6 copies.
@pytest.mark.parametrize(("name", "dispatches", "matrices"), [("tridiag-sonew", 16, 10), ("band-sonew", 33, 29)])
@pytest.mark.parametrize("target", GPUS)
def test_neither_shifts_nor_state_are_copied(
    name: str, dispatches: int, matrices: int, target: str, tmp_path: Path
) -> None:
    work = schedule(name, target, tmp_path)
    assert 0 < work["dispatch-count"] <= dispatches
    assert work["copy-count"] == 0
    assert work["transient-memory-size"] <= (matrices + 1 / 8) * 4 * math.prod(SHAPE)


@pytest.mark.parametrize("name", ["tridiag-sonew", "band-sonew"])
@pytest.mark.parametrize("target", GPUS)
def test_no_register_is_spilled(name: str, target: str) -> None:
    if target.startswith("cuda") and find_ptxas() is None:
        pytest.skip("there is no ptxas: pip install -e '.[cuda]'")
    shared, resolved = update(name), resolve_target(target)
    _, spec = lower(adapt(shared, resolved, what=name), resolved, shared=shared, what=name)
    assert spec.kernels
    assert all(0 < kernel.registers <= 255 and kernel.spilled_bytes == 0 for kernel in spec.kernels)
