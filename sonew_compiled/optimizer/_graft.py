"""Grafting: the length of one optimizer's step on the direction of another (Agarwal et al. 2020, arXiv 2002.11803)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

GRAFTS = ("adam", "sgd", "momentum", "rmsprop", "none")

# Added to the square root of statistics of normalised gradients.
_NORMALISED_EPS = 1e-10


def graft_direction(kind: str, g: jax.Array, m: jax.Array, diagonal: jax.Array, eps: jax.Array | float) -> jax.Array:
    """The step whose length is grafted, of `g`'s shape.

    Args:
      kind: "adam" `m / (sqrt(diagonal) + eps)`, "rmsprop" `g / (sqrt(diagonal) + eps)`, "momentum" `m`, "sgd" `g`.
      g: gradient.
      m: momentum.
      diagonal: diagonal statistics, before damping.
      eps: added to their square root.
    """
    if kind in ("adam", "rmsprop"):
        return (m if kind == "adam" else g) / (jnp.sqrt(diagonal) + jnp.asarray(eps, g.dtype))
    return m if kind == "momentum" else g


def graft(u: jax.Array, onto: jax.Array, *, times: jax.Array | float = 1.0) -> jax.Array:
    """`u * times * ||onto|| / ||u||` for one tensor: finite for finite input, and shorter if `||u||` underflows."""
    u = saturate(u)
    length, asked = _norm(u), times * _norm(onto)
    scale = jnp.minimum(asked / jnp.maximum(length, _shortest(length)), float(jnp.finfo(u.dtype).max))
    return u * scale.astype(u.dtype)


def normalised(g: jax.Array) -> jax.Array:
    """`g / ||g||` for one tensor that `saturate` has limited; shorter if the norm underflows."""
    norm = jnp.sqrt(jnp.sum(jnp.square(g)))
    return g / jnp.maximum(norm, _shortest(norm))


def normalised_rmsprop(
    unit: jax.Array, diagonal: jax.Array, *, b2: float, unbias: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The step of RMSProp on normalised gradients, whose length is grafted, and its new diagonal statistics.

    Args:
      unit: the gradient after `normalised`.
      diagonal: the statistics so far, without bias correction.
      b2: the decay of the statistics.
      unbias: the bias correction of the new statistics, a scalar factor.
    """
    diagonal = b2 * diagonal + (1 - b2) * jnp.square(unit)
    corrected = diagonal * unbias.astype(diagonal.dtype)
    return graft_direction("rmsprop", unit, unit, corrected, _NORMALISED_EPS), diagonal


def saturate(x: jax.Array) -> jax.Array:
    """`x` limited to magnitudes whose squares still sum to a finite number over the whole tensor.

    The limit is about 7e15 for float32 and bfloat16 at a million entries. Larger numbers only occur in a run that has
    diverged. The limit keeps every later product, norm and ratio finite without another pass over the data.
    """
    limit = math.sqrt(float(jnp.finfo(x.dtype).max) / (8 * max(x.size, 1)))
    return jnp.clip(x, jnp.asarray(-limit, x.dtype), jnp.asarray(limit, x.dtype))


def _shortest(norm: jax.Array) -> float:
    """The least norm that is distinguishable from zero as the root of a sum of squares."""
    return math.sqrt(float(jnp.finfo(norm.dtype).tiny))


def _norm(x: jax.Array) -> jax.Array:
    """`||x||`, finite even if the squares sum to infinity."""
    total = jnp.sum(jnp.square(x), dtype=jnp.promote_types(x.dtype, jnp.float32))
    return jnp.sqrt(jnp.minimum(total, jnp.finfo(total.dtype).max))
