"""The parameters as one vector of bounded length, for optimizers with one matrix over all parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from sonew_compiled.errors import UsageError

LARGEST = 4096
"""The most parameters that a model may have: their matrix takes 64 MiB in float32."""


def parameter_vector(params: Any, optimizer: str) -> jax.Array:
    """All parameters as one vector of shape (n,).

    Raises:
      UsageError: n is more than `LARGEST`.
    """
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    if count > LARGEST:
        raise UsageError(
            f"{optimizer} keeps a matrix of {count:,} x {count:,} for the model's parameters; give a model of at most "
            f"{LARGEST:,} parameters, or another optimizer, such as shampoo or band-sonew"
        )
    vector: jax.Array = ravel_pytree(params)[0]
    return vector if vector.size else jnp.zeros((0,), jnp.float32)
