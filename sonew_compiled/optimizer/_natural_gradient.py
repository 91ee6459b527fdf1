"""The natural gradient of small models as an optax transformation with a backward pass of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from sonew_compiled.optimizer._full_matrix import parameter_vector
from sonew_compiled.optimizer._graft import saturate
from sonew_compiled.optimizer._inverse_root import TOLERANCE, inverse_root
from sonew_compiled.optimizer._own_backward import BackwardTransformation, with_learning_rate
from sonew_compiled.optimizer._precision import in_float32
from sonew_compiled.optimizer._tapped import Loss


class ScaleByNaturalGradientState(NamedTuple):
    """The state of `scale_by_natural_gradient`, which is empty."""


def scale_by_natural_gradient(*, loss: Loss, eps: float = 1e-2) -> BackwardTransformation:
    r"""Precondition updates by the damped empirical Fisher matrix of the batch, over all parameters.

    `J` holds the gradients of the examples' losses, of shape (batch, n), for `N` examples:

    .. math::
      u = (J^T J / N + \epsilon I)^{-1} \bar g = J^T (J J^T / N + \epsilon I)^{-1} 1 / N, \quad \bar g = J^T 1 / N

    Both expressions are equal. The smaller matrix is inverted, by matrix products (`inverse_root`). In float32 its
    damping exceeds `eps` by 1.2e-7 of its Frobenius norm. If the inversion does not converge, the step is zero.

    Args:
      loss: `loss(params, batch) -> scalar` of any model, a mean over the batch's examples.
      eps: damping, in the units of the Fisher matrix.

    Raises:
      UsageError: the model has more than 4096 parameters; `init` raises it.

    References:
      Amari, Natural Gradient Works Efficiently in Learning, Neural Computation 1998. The empirical Fisher matrix uses
      the gradients of the loss that is trained, not those for labels that the model would draw.
    """

    def init(params: optax.Params) -> ScaleByNaturalGradientState:
        parameter_vector(params, "natural-gradient")
        return ScaleByNaturalGradientState()

    def update(
        signals: jax.Array, state: ScaleByNaturalGradientState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByNaturalGradientState]:
        if params is None:
            raise ValueError("natural-gradient's gradients have no tree; give update() the params too")
        _, unravel = ravel_pytree(params)
        return unravel(_direction(saturate(signals), eps)), state

    def backward(params: Any, batch: Any, cotangent: Any) -> tuple[jax.Array, jax.Array]:
        def gradient(example: Any) -> tuple[jax.Array, jax.Array]:
            one = jax.tree.map(lambda x: x[None], example)
            value, pullback = jax.vjp(lambda p: loss(p, one), params)
            return value, ravel_pytree(pullback(jnp.asarray(cotangent, value.dtype))[0])[0]

        values, gradients = jax.vmap(gradient)(batch)
        return jnp.mean(values), gradients

    return BackwardTransformation(init, update, backward)


def natural_gradient(learning_rate: optax.ScalarOrSchedule, *, loss: Loss, eps: float = 1e-2) -> BackwardTransformation:
    """Natural gradient descent: `w <- w - lr_t u_t`, `u_t` and all options of `scale_by_natural_gradient`."""
    return with_learning_rate(scale_by_natural_gradient(loss=loss, eps=eps), learning_rate)


@in_float32
def _direction(gradients: jax.Array, eps: float) -> jax.Array:
    examples, parameters = gradients.shape
    if examples < parameters:
        inverse, error = _damped_inverse(gradients @ gradients.T / examples, eps)
        direction = jnp.sum(inverse, axis=1) / examples @ gradients
    else:
        inverse, error = _damped_inverse(gradients.T @ gradients / examples, eps)
        direction = inverse @ jnp.mean(gradients, axis=0)
    return jnp.where(error < TOLERANCE, direction, jnp.zeros_like(direction))


def _damped_inverse(matrix: jax.Array, eps: float) -> tuple[jax.Array, jax.Array]:
    damped = matrix + jnp.asarray(eps, matrix.dtype) * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    inverse, error = inverse_root(damped, 1, float(jnp.finfo(matrix.dtype).eps))
    return inverse.astype(matrix.dtype), error
