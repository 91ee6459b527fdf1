"""Random bits by Threefry-2x32, with unrolled rounds.

For processors JAX lowers the rounds to a loop, which IREE 3.13 folds wrongly if the key is a constant. It fuses the
unrolled rounds for minutes if it knows both words of the key, so the key is behind a barrier.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.extend.core.primitives import threefry2x32_p

from sonew_compiled.rules._rule import rule

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry2x32(key0: jax.Array, key1: jax.Array, x0: jax.Array, x1: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Twenty rounds of Threefry-2x32.

    Args:
      key0, key1: the key, uint32, of shapes that broadcast with those of the counters.
      x0, x1: the counters, uint32.

    Returns:
      Two arrays of random bits, uint32, of the broadcast shape.

    References:
      Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3, SC 2011.
    """
    key0, key1 = jax.lax.optimization_barrier((key0, key1))
    key = (key0, key1, key0 ^ key1 ^ jnp.uint32(_PARITY))
    x0, x1 = x0 + key[0], x1 + key[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = x0 ^ (x1 << jnp.uint32(distance) | x1 >> jnp.uint32(32 - distance))
        x0 = x0 + key[(group + 1) % 3]
        x1 = x1 + key[(group + 2) % 3] + jnp.uint32(group + 1)
    return x0, x1


RULES = (rule(threefry2x32_p, threefry2x32, name="threefry2x32"),)
