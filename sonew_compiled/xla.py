"""XLA's compiler for portable artifacts and lowered functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import jax
import jax.numpy as jnp
from jax import export

from sonew_compiled.runtime.cores import available_cores

# By default XLA drops a rounding that is widened again at once, and so computes other numbers than the module.
_EXACT: dict[str, str | bool] = {"xla_allow_excess_precision": False}
# For code that runs only a few times: LLVM does not optimize it, and XLA's older loop emitter makes less of it. In one
# piece, since each of several has all the declarations.
_QUICK: dict[str, str | bool] = {
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": "1",
}
# Of two cores, IREE's compiler has one.
_FEW_CORES = 2


def compile_lowered(lowered: jax.stages.Lowered, *, quickly: bool = False) -> jax.stages.Compiled:
    """Compiles to code that rounds where the module does.

    Args:
      lowered: the lowered function.
      quickly: for the processor, compiles in about a tenth of the time, while IREE compiles; all code but products is
        then slower.
    """
    if quickly:
        try:
            many = len(available_cores()) > _FEW_CORES
            return lowered.compile(compiler_options=_EXACT | _QUICK | {"xla_cpu_multi_thread_eigen": many})
        except Exception as error:
            # XLA's options of this kind come and go with its releases.
            if "compile option" not in str(error):
                raise
    return lowered.compile(compiler_options=_EXACT)


def compile_artifact(
    artifact: bytes,
    inputs: Sequence[jax.ShapeDtypeStruct],
    outputs: Sequence[jax.ShapeDtypeStruct],
    *,
    platform: str,
    donated: Collection[int] = (),
    quickly: bool = False,
) -> jax.stages.Compiled:
    """Compiles an artifact with the one public function `@main`.

    Args:
      artifact: the module.
      inputs: the function's arguments; their sharding gives the device to compile for.
      outputs: its results.
      platform: JAX's name of the platform to compile for, such as `cpu`.
      donated: the indices of arguments that XLA may overwrite.
      quickly: as in `compile_lowered`.
    """

    def stand_in(*_: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros(each.shape, each.dtype) for each in outputs)

    # JAX compiles its own exports. So an export of the right signature gets our module.
    exported = export.export(jax.jit(stand_in, keep_unused=True), platforms=[platform])(*inputs)
    exported = dataclasses.replace(exported, mlir_module_serialized=artifact)

    def call(*arguments: jax.Array) -> tuple[jax.Array, ...]:
        results: tuple[jax.Array, ...] = exported.call(*arguments)
        return results

    lowered = jax.jit(call, donate_argnums=tuple(donated), keep_unused=True).lower(*inputs)
    return compile_lowered(lowered, quickly=quickly)
