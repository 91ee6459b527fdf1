"""Grafting: the length of one optimizer's step on the direction of another (Agarwal et al. 2020, arXiv 2002.11803)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

GRAFTS = ("adam", "sgd", "momentum", "rmsprop", "none")

# Added to the square root of statistics of normalised gradients.
_NORMALISED_EPS = 1e-10


def graft_direction(kind: str, g: jax.Array, m: jax.Array, diagonal: jax.Array, eps: float) -> jax.Array:
    """The step whose length is grafted, of `g`'s shape.

    Args:
      kind: "adam" `m / (sqrt(diagonal) + eps)`, "rmsprop" `g / (sqrt(diagonal) + eps)`, "momentum" `m`, "sgd" `g`.
      g: gradient.
      m: bias-corrected momentum.
      diagonal: bias-corrected diagonal statistics, before damping.
      eps: `graft_eps`.
    """
    if kind in ("adam", "rmsprop"):
        return (m if kind == "adam" else g) / (jnp.sqrt(diagonal) + jnp.asarray(eps, g.dtype))
    return m if kind == "momentum" else g


def graft(u: jax.Array, onto: jax.Array) -> jax.Array:
    """`u * ||onto|| / ||u||` for one tensor; zero where either norm is zero, finite for all finite input."""
    finfo = jnp.finfo(jnp.promote_types(u.dtype, jnp.float32))
    length = jnp.maximum(_norm(u), finfo.tiny)
    scale = jnp.minimum(_norm(onto) / length, finfo.max)
    return saturate(u) * scale.astype(u.dtype)


def normalised(g: jax.Array) -> jax.Array:
    """`g / ||g||` for one tensor, zero where the norm is; `g` is one that `saturate` gives."""
    norm = jnp.sqrt(jnp.sum(jnp.square(g)))
    return g / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)


def normalised_rmsprop(
    unit: jax.Array, diagonal: jax.Array, *, b2: float, unbias: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The step of RMSProp on normalised gradients, whose length is grafted, and its new diagonal statistics.

    Args:
      unit: of `normalised`.
      diagonal: statistics so far, without bias correction.
      b2: their decay.
      unbias: what the new ones are multiplied by, a scalar.
    """
    diagonal = b2 * diagonal + (1 - b2) * jnp.square(unit)
    corrected = diagonal * unbias.astype(diagonal.dtype)
    return graft_direction("rmsprop", unit, unit, corrected, _NORMALISED_EPS), diagonal


def saturate(x: jax.Array) -> jax.Array:
    """`x` limited to magnitudes whose squares still sum to a finite number over the whole tensor.

    The limit is about 7e15 for float32 and bfloat16 at a million entries. Numbers beyond it only come up in a run
    that has diverged; limiting them keeps every later product, norm and ratio finite without a pass over the data.
    """
    limit = math.sqrt(float(jnp.finfo(x.dtype).max) / (8 * max(x.size, 1)))
    return jnp.clip(x, jnp.asarray(-limit, x.dtype), jnp.asarray(limit, x.dtype))


def _norm(x: jax.Array) -> jax.Array:
    x = saturate(x)
    return jnp.sqrt(jnp.sum(jnp.square(x), dtype=jnp.promote_types(x.dtype, jnp.float32)))
