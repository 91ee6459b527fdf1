"""Compiling for micro-batches: `--micro-batch`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxlib.mlir import ir

from sonew_compiled import passes
from sonew_compiled.backward import own_backward
from sonew_compiled.contract import EXCHANGES, GRADIENTS, INIT, is_update
from sonew_compiled.errors import UsageError
from sonew_compiled.trace import OptimizerFactory


@dataclass(frozen=True, kw_only=True)
class MicroBatches:
    """The parts of a batch.

    Attributes:
      batch: the shapes and dtypes of one part.
      count: the number of parts in a batch.
      exchange: the type to which gradients are rounded for the exchange between workers, "f32" or "bf16".
    """

    batch: Any
    count: int
    exchange: str


def micro_batches(
    batch: Any, size: int, optimizer: OptimizerFactory, name: str, *, exchange: str = "f32"
) -> MicroBatches:
    """The parts of a batch of this many examples.

    Args:
      batch: a tree of `jax.ShapeDtypeStruct` whose leading axes are the batch size.
      size: the examples in a part.
      optimizer: makes the transformation from the learning rate.
      name: the optimizer's name, for the error.
      exchange: see `MicroBatches`.

    Raises:
      UsageError: the parts do not make a batch, the exchange is of another type, or the optimizer needs signals that
        have no sum over the parts.
    """
    if exchange not in EXCHANGES:
        raise UsageError(f"--exchange is {exchange!r}: give {' or '.join(EXCHANGES)}")
    leaves = jax.tree.leaves(batch)
    examples = leaves[0].shape[0] if leaves and leaves[0].shape else 0
    if size < 1 or examples % size:
        raise UsageError(
            f"--micro-batch is {size}: give a number of examples of which the batch size, {examples}, is a multiple"
        )
    if own_backward(optimizer(jnp.zeros((), jnp.float32))) is not None:
        raise UsageError(
            f"{name} needs numbers of each example of a batch, which have no sum over micro-batches: leave out "
            "--micro-batch or choose another optimizer"
        )
    part = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), batch)
    return MicroBatches(batch=part, count=examples // size, exchange=exchange)


def add_halves(
    module: ir.Module, text: str, policy: passes.Policy, parts: MicroBatches, *, dump_ir: Path | None = None
) -> None:
    """Adds `gradients`, `update` and its parts to a module that the passes have left.

    Args:
      module: the module of the whole batch.
      text: the traced module of a micro-batch.
      policy: the precision policy.
      parts: the micro-batches.
      dump_ir: a directory for the module of the micro-batch after each pass.

    Raises:
      UsageError: the optimizer's state depends on the number of examples.
    """
    halves = passes.parse(text, module.context)
    folder = None if dump_ir is None else dump_ir / "micro-batch"
    passes.run_pipeline(
        halves, passes.pipeline(policy, micro_batches=parts.count, exchange=parts.exchange), dump_dir=folder
    )
    if passes.signatures(halves)[INIT] != passes.signatures(module)[INIT]:
        raise UsageError("the optimizer's state depends on the size of the batch: leave out --micro-batch")
    made = [name for name in passes.signatures(halves) if name == GRADIENTS or is_update(name)]
    passes.link(module, halves, made)
