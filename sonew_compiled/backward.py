"""The inputs of an optimizer's update: gradients at the parameters, gradients at another point, or other signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Loss = Callable[[Any, Any], jax.Array]
LossWithState = Callable[[Any, Any, Any, Any], tuple[jax.Array, Any]]
BackwardPass = Callable[[Any, Any, Any], tuple[Any, Any]]


def loss_and_signals(
    optimizer: optax.GradientTransformation, loss: Loss, params: Any, state: Any, batch: Any
) -> tuple[jax.Array, Any]:
    """The loss, and what `optimizer.update` takes: a whole step does nothing else before it."""
    point = gradient_point(optimizer, params, state)
    result: tuple[jax.Array, Any] = backward_pass(optimizer, loss)(point, batch, jnp.ones((), jnp.float32))
    return result


def gradient_point(optimizer: optax.GradientTransformation, params: Any, state: Any) -> Any:
    """The point at which a step differentiates the loss: the parameters, unless the optimizer has a `gradient_point`.

    `optimizer.gradient_point(params, state)` is for an optimizer whose parameters are an average of its iterates.
    """
    own = getattr(optimizer, "gradient_point", None)
    return params if own is None else own(params, state)


def backward_pass(optimizer: optax.GradientTransformation, loss: Loss) -> BackwardPass:
    """A function of (parameters, batch, cotangent of the loss) that gives the loss and the gradients.

    An optimizer that needs more than gradients has a `backward` of its own, made from the same loss. Its `update` takes
    the signals of `backward` in place of the gradients.
    """

    def gradients(params: Any, batch: Any, cotangent: Any) -> tuple[Any, Any]:
        value, pullback = jax.vjp(lambda p: loss(p, batch), params)
        return value, pullback(cotangent.astype(value.dtype))[0]

    return own_backward(optimizer) or gradients


def backward_with_state(loss: LossWithState, params: Any, state: Any, rng: Any, batch: Any, cotangent: Any) -> Any:
    """The loss, the gradients and the state after the step, of a loss that keeps a state or draws."""
    value, pullback, after = jax.vjp(lambda p: loss(p, state, rng, batch), params, has_aux=True)
    return value, pullback(cotangent.astype(value.dtype))[0], after


def own_backward(optimizer: optax.GradientTransformation) -> BackwardPass | None:
    """The backward pass of an optimizer that has one of its own."""
    own: BackwardPass | None = getattr(optimizer, "backward", None)
    return own
