"""`join-maps`: what SONew's updates write is written by few operations, and computed as it was."""

from __future__ import annotations

import iree.runtime as rt
import jax.numpy as jnp
import numpy as np
import pytest
from jaxlib.mlir import ir

from sonew_compiled import passes
from sonew_compiled.lower import lower
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.passes._function import operations_in
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.targets import resolve_target
from sonew_compiled.trace import trace_update

SHAPE = (200, 96)


def update(name: str, *more: str) -> ir.Module:
    """The update of one matrix, for the processor, with these further passes."""
    optimizer = optimizer_factory(optimizer_settings(name))
    module = passes.parse(trace_update(init=lambda key: {"w": jnp.zeros(SHAPE)}, optimizer=optimizer))
    passes.run_pipeline(module, [*passes.PIPELINE, *map(passes.parse_pass, ("peel-shifts", *more))])
    return module


def results_of(module: ir.Module) -> list[int]:
    """How many results each joined operation of the step has, of those on most of the rows."""
    joined = [op for op in operations_in(module.operation) if op.name == "linalg.generic"]
    return [len(op.results) for op in joined if 2 * ir.ShapedType(op.results[0].type).shape[0] > SHAPE[0]]


@pytest.mark.parametrize(
    ("name", "joined"),
    [
        ("tridiag-sonew", [3]),  # momentum and two bands
        # Momentum and five bands; the bands of the kept edges; the subdiagonals of L and the sweep up.
        ("band-sonew", [6, 3, 5]),
    ],
)
def test_what_reads_the_same_is_written_together(name: str, joined: list[int]) -> None:
    assert results_of(update(name, "join-maps")) == joined


@pytest.mark.parametrize("name", ["tridiag-sonew", "band-sonew"])
def test_the_update_is_computed_as_it_was(name: str) -> None:
    apart, joined = (after_one_update(update(name, *more)) for more in ((), ("join-maps",)))
    assert len(apart) > 4
    for had, has in zip(apart, joined, strict=True):
        np.testing.assert_allclose(has, had, rtol=1e-5, atol=1e-7)


def after_one_update(module: ir.Module) -> list[np.ndarray]:
    """The parameters and the state that this processor's code makes of statistics that are well conditioned."""
    rng = np.random.default_rng(0)
    values = []
    for each in passes.signatures(module)["train_step"].inputs:
        noise = rng.standard_normal(each.shape).astype(each.dtype)
        values.append(1 + abs(noise) if each.name.endswith("bands/w/0") else 0.1 * noise)
        if each.dtype == "int32":
            values[-1] = np.array(7, np.int32)
    config = rt.Config("local-sync")
    context = rt.SystemContext(config=config)
    code = lower(passes.to_bytes(module), resolve_target("cpu"), what="an update")
    context.add_vm_module(rt.VmModule.copy_buffer(context.instance, code))
    buffers = [rt.asdevicearray(config.device, each.astype(each.dtype)) for each in values]
    return [each.to_host().copy() for each in context.modules.sonew.train_step(*buffers)]
