"""The requirement of a policy that scales the loss: gradients proportional to the cotangent of the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from sonew_compiled.errors import UsageError
from sonew_compiled.xla import compile_lowered

# The relative difference of gradients that are proportional. A power of two rounds nothing but subnormal numbers.
_ROUNDED = 1e-3


def has_own_derivatives(loss: ClosedJaxpr) -> bool:
    """Whether a loss has a `jax.custom_vjp`, which can clip or round a cotangent; derivatives by JAX cannot."""
    return "custom_vjp_call" in str(loss)


def drawn_batch(batch: Any) -> Any:
    """A random batch of these shapes: numbers from 0 to 1, and integers that are 0 or 1."""
    leaves, tree = jax.tree.flatten(batch)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    return jax.tree.unflatten(tree, map(_drawn, leaves, keys))


def _drawn(spec: Any, key: jax.Array) -> jax.Array:
    floating = jnp.issubdtype(spec.dtype, jnp.floating)
    made = jax.random.uniform(key, spec.shape) if floating else jax.random.bernoulli(key, shape=spec.shape)
    return made.astype(spec.dtype)


def check_proportional(
    gradients: Callable[[Any], Any], scale: float, names: Sequence[str], depends: Sequence[bool]
) -> None:
    """Checks gradients by computing them for two cotangents.

    Args:
      gradients: the gradients at some point for a float32 cotangent; a tree with a leaf for each name.
      scale: the second cotangent, a power of two; the first is 1.
      names: the names of the parameters.
      depends: whether each leaf depends on the cotangent at all.

    Raises:
      UsageError: one of those that do is not proportional to it.
    """

    def compared() -> list[tuple[Any, Any]]:
        one, many = (jax.tree.leaves(gradients(jnp.float32(each))) for each in (1.0, scale))
        return [
            (jnp.linalg.norm((y.astype(jnp.float32) / scale - x).ravel()), jnp.linalg.norm(x.ravel()))
            for x, y in zip(one, many, strict=True)
        ]

    found = compile_lowered(jax.jit(compared).lower(), quickly=True)()
    for name, is_scaled, (difference, size) in zip(names, depends, found, strict=True):
        if is_scaled and jnp.isfinite(size) and not difference <= _ROUNDED * size:
            raise UsageError(
                f"the gradient of {name} is not proportional to that of the loss, which this precision scales: a "
                "custom_vjp clips, rounds or compares what it is given; choose --precision bf16-mixed or f32"
            )
