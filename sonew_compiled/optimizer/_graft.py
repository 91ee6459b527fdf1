"""Grafting: the length of one optimizer's step on the direction of another (Agarwal et al. 2020, arXiv 2002.11803)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from sonew_compiled.errors import UsageError

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
    """`u * times * ||onto|| / ||u||` for one tensor: finite for finite input, and shorter if squares of `u` vanish."""
    u = saturate(u)
    asked = times * jnp.sqrt(_square_sum(onto))
    scale = jnp.minimum(asked / _upper_norm(u), float(jnp.finfo(u.dtype).max))
    return u * scale.astype(u.dtype)


def normalised(g: jax.Array) -> jax.Array:
    """`g / ||g||` for one tensor that `saturate` has limited; shorter if squares of its numbers vanish."""
    return g / _upper_norm(g).astype(g.dtype)


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
    """`x` with its finite numbers limited to magnitudes whose squares still sum to a finite number over the tensor.

    The limit is about 7e15 for float32 and bfloat16 at a million entries. Larger numbers only occur in a run that has
    diverged. The limit keeps every later product, norm and ratio finite without another pass over the data. An infinite
    number stays as it is, so that the loss shows it.

    Raises:
      UsageError: `x` is of float16, where the limit would meet ordinary gradients.
    """
    if x.dtype == jnp.float16:
        raise UsageError(
            "this optimizer squares and sums gradients, which float16 has no range for; keep the parameters in float32 "
            "and give --precision f16-mixed to compute in float16, or give --optimizer adam"
        )
    limit = math.sqrt(float(jnp.finfo(x.dtype).max) / (8 * max(x.size, 1)))
    # Called by functions of their own, these operations are what IREE 3.13 mixes up the shapes of for bytecode.
    limited = jax.lax.clamp(jnp.asarray(-limit, x.dtype), x, jnp.asarray(limit, x.dtype))
    return jax.lax.select(jnp.abs(x) == jnp.inf, x, limited)


def _upper_norm(x: jax.Array) -> jax.Array:
    """`||x||`, or a little more: squares below the least normal number count as that number."""
    total = _square_sum(x)
    return jnp.sqrt(total + x.size * float(jnp.finfo(total.dtype).tiny))


def _square_sum(x: jax.Array) -> jax.Array:
    """`||x||^2`, finite even if the squares sum to infinity."""
    total = jnp.sum(jnp.square(x), dtype=jnp.promote_types(x.dtype, jnp.float32))
    return jnp.minimum(total, jnp.finfo(total.dtype).max)
