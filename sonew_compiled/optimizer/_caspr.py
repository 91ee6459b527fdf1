"""CASPR: Shampoo with a sum of its sides' preconditioners in place of their product."""

from __future__ import annotations

import jax
import optax

from sonew_compiled.optimizer._shampoo import scale_by_shampoo


def caspr(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-6,
    precond_interval: int = 20,
    block_size: int = 2048,
) -> optax.GradientTransformation:
    r"""The CASPR optimizer: statistics, roots, step lengths and options of `scale_by_shampoo`, and another direction.

    .. math::
      J_t = L^{-1/4} G_t + G_t R^{-1/4}, \quad P_t = L^{-1/4} J_t + J_t R^{-1/4}

    So the gradient is multiplied by the square of the Kronecker sum `L^{-1/4} \otimes I + I \otimes R^{-1/4}`. The
    paper divides it by 4, which has no effect, since the length of the step is that of the graft.

    References:
      Duvvuri, Devvrit, Anil, Hsieh, Dhillon, Combining Axes Preconditioners through Kronecker Approximation for Deep
      Learning, ICLR 2024, algorithm 1.
    """
    scale = scale_by_shampoo(
        b1=b1,
        b2=b2,
        eps=eps,
        precond_interval=precond_interval,
        block_size=block_size,
        precondition=of_either_side,
    )
    return optax.chain(scale, optax.scale_by_learning_rate(learning_rate))


def of_either_side(block: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    """CASPR's direction of a block, up to a factor."""
    once = left @ block + block @ right
    return left @ once + once @ right
