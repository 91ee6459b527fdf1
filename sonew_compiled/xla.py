"""XLA's compiler, given a portable artifact instead of a function."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import jax
import jax.numpy as jnp
from jax import export

OPTIONS: dict[str, str | bool] = {"xla_allow_excess_precision": False}
"""Left to itself XLA drops a rounding that is widened again at once, and computes in other numbers than the module."""


def compile_artifact(
    artifact: bytes,
    inputs: Sequence[jax.ShapeDtypeStruct],
    outputs: Sequence[jax.ShapeDtypeStruct],
    *,
    platform: str,
    donated: Collection[int] = (),
) -> jax.stages.Compiled:
    """Compiles an artifact with the one public function `@main`.

    Args:
      artifact: the module.
      inputs: the function's arguments; their sharding says for which device it is compiled.
      outputs: its results.
      platform: JAX's name of what it is compiled for, such as `cpu`.
      donated: which arguments XLA may overwrite.
    """

    def stand_in(*_: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros(each.shape, each.dtype) for each in outputs)

    # JAX compiles what it has exported. This is an export of the right signature, with our module in it.
    exported = export.export(jax.jit(stand_in, keep_unused=True), platforms=[platform])(*inputs)
    exported = dataclasses.replace(exported, mlir_module_serialized=artifact)

    def call(*arguments: jax.Array) -> tuple[jax.Array, ...]:
        results: tuple[jax.Array, ...] = exported.call(*arguments)
        return results

    lowered = jax.jit(call, donate_argnums=tuple(donated), keep_unused=True).lower(*inputs)
    return lowered.compile(compiler_options=OPTIONS)
