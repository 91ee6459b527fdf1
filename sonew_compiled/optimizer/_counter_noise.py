"""Noise for stochastic rounding: a hash of counters, without a generator's state and the same on every target."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

_GOLDEN = 0x9E3779B9


def tensor_key(step: jax.Array, tensor: int) -> jax.Array:
    """The key of one tensor in one step, a uint32 scalar: `mix(mix(step + 0x9e3779b9) ^ tensor)`.

    Args:
      step: the steps before this one, an integer scalar.
      tensor: the tensor's number among those that are rounded.
    """
    return _mix(_mix(step.astype(jnp.uint32) + jnp.uint32(_GOLDEN)) ^ jnp.uint32(tensor))


def uniform_noise(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Multiples of 2^-24 in [0, 1): `(mix(mix(index) ^ key) >> 8) / 2^24`, with the row-major index of each element.

    The hash is that of the pass `stochastic-rounding` (docs/reference/precision.md). All arithmetic before the last
    division is unsigned, with 32 bits, and wraps around.
    """
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :])
        index = index + jnp.uint32(stride) * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    return (_mix(_mix(index) ^ key) >> 8).astype(dtype) * jnp.asarray(2.0**-24, dtype)


def _mix(x: jax.Array) -> jax.Array:
    """The finalizer "lowbias32" of C. Wellons' hash-prospector."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)
