"""Exponential averages that start from zero: `a <- decay * a + (1 - decay) * x`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def unbias(decay: float, count: jax.Array, dtype: Any) -> jax.Array:
    """The bias correction `1 / (1 - decay^count)` of an average after `count` updates.

    It is a scalar of at least float32, whatever `dtype` the average has: in bfloat16, `1 - 0.99` would be a fifth off.
    Source: "Adam: A Method for Stochastic Optimization" (ICLR 2015, arXiv 1412.6980), section 3.
    """
    wide = jnp.promote_types(dtype, jnp.float32)
    return 1 / (1 - jnp.asarray(decay, wide) ** count.astype(wide))
