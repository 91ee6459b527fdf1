"""Where IREE computes the gradients of a bucket, and where its update reads them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp

from sonew_compiled import passes
from sonew_compiled.contract import BUCKET, GRADIENTS, update_part
from sonew_compiled.lowering.lower import adapt
from sonew_compiled.lowering.targets import iree_compile, pin_host, resolve_target
from sonew_compiled.micro_batches import add_halves, micro_batches
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.trace import trace_training

SHAPES = {"outer": (48, 64), "inner": (64, 48)}
SIZE = 48 * 64


def test_no_gradient_of_a_matrix_is_copied(tmp_path: Path) -> None:
    def init(key: jax.Array) -> dict[str, jax.Array]:
        return {name: jax.random.normal(key, shape) for name, shape in SHAPES.items()}

    def loss(weights: dict[str, jax.Array], batch: jax.Array) -> jax.Array:
        return jnp.mean((jnp.tanh(batch @ weights["inner"]) @ weights["outer"] - batch) ** 2)

    factory = optimizer_factory(optimizer_settings("tridiag-sonew"))
    parts = micro_batches(jax.ShapeDtypeStruct((64, 64), jnp.float32), 32, factory, "tridiag-sonew")
    policy = passes.precision_policy("f32")
    traced = trace_training(init=init, loss=loss, optimizer=factory, batch=parts.batch).text
    module = passes.parse(traced)
    passes.run_pipeline(module, passes.pipeline(policy))
    add_halves(module, traced, policy, parts)
    of_parts = [passes.ranges_read(module, BUCKET)[update_part(number)] for number in range(2)]
    assert sorted(of_parts) == [((16, 16 + SIZE),), ((16 + SIZE, 16 + 2 * SIZE),)]
    target = pin_host(resolve_target("cpu"))
    source = tmp_path / "adapted.mlir"
    source.write_bytes(adapt(passes.to_portable_artifact(module), target, what="a test"))
    command = [iree_compile(), str(source), "--iree-input-type=stablehlo", *target.flags, "--compile-to=stream"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    bodies = dict(re.findall(r"util\.func public @(\w+)(.*?)\n  }\n", text, re.DOTALL))
    for name in (GRADIENTS, update_part(0), update_part(1)):
        assert re.findall(r"stream\.cmd\.copy.*", bodies[name]) == [], name
