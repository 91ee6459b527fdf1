"""`jax.lax.approx_max_k` and `approx_min_k`, computed exactly, as JAX does on processors.

JAX's own lowering is a call that only XLA knows, and adds a second public function to the module.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core.primitives import approx_top_k_p

from sonew_compiled.rules._rule import rule


def approx_top_k(
    operand: jax.Array, *, reduction_dimension: int, is_max_k: bool, **others: Any
) -> tuple[jax.Array, jax.Array]:
    """The largest or smallest elements along an axis and their indices, in order, the first of equal ones first.

    Args:
      operand: an array of floats.
      reduction_dimension: the axis.
      is_max_k: whether to find the largest.
      others: the primitive's other parameters; the number of elements depends on all of them.
    """
    dim = reduction_dimension % operand.ndim
    bound = functools.partial(approx_top_k_p.bind, reduction_dimension=dim, is_max_k=is_max_k, **others)
    count = jax.eval_shape(bound, operand)[0].shape[dim]
    if is_max_k:
        values, indices = lax.top_k(jnp.moveaxis(operand, dim, -1), count)
        return jnp.moveaxis(values, -1, dim), jnp.moveaxis(indices, -1, dim)
    numbers = lax.broadcasted_iota(jnp.int32, operand.shape, dim)
    values, indices = lax.sort((operand, numbers), dimension=dim, num_keys=1)
    return lax.slice_in_dim(values, 0, count, axis=dim), lax.slice_in_dim(indices, 0, count, axis=dim)


RULES = (rule(approx_top_k_p, approx_top_k),)
