"""Schedule-free AdamW, whose parameters are the averaged iterates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.optimizer._average import unbias
from sonew_compiled.optimizer._own_backward import rate_at


class ScheduleFreeAdamwState(NamedTuple):
    """State of `schedule_free_adamw`.

    Attributes:
      count: updates done, an int32 scalar.
      weight_sum: the sum of the average's weights, a float32 scalar.
      largest_rate: the largest learning rate so far, a float32 scalar.
      nu: second moments, a tree like the parameters.
      offset: `z - x`, a tree like the parameters.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in every optax state
    weight_sum: jax.Array
    largest_rate: jax.Array
    nu: Any
    offset: Any


class AveragingTransformation(NamedTuple):
    """An optax transformation that takes its gradients at another point than the parameters.

    `compile_training` evaluates them at `gradient_point`, and a loop of your own must do so too. An `optax.chain` would
    lose that method, so the transformation must stand alone.

    Attributes:
      init: as any optax transformation's.
      update: likewise.
      gradient_point: `gradient_point(params, state)`, a tree like the parameters.
    """

    init: Callable[[Any], ScheduleFreeAdamwState]
    update: Callable[..., tuple[Any, ScheduleFreeAdamwState]]
    gradient_point: Callable[[Any, ScheduleFreeAdamwState], Any]


def schedule_free_adamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> AveragingTransformation:
    r"""AdamW without a schedule: gradients at an interpolation of the iterates `z` with their average `x`.

    .. math::
      y_t &= (1 - \beta_1) z_t + \beta_1 x_t, \quad g_t = \nabla f(y_t) \\
      z_{t+1} &= z_t - \gamma_t \left( \frac{g_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} + \lambda y_t \right) \\
      x_{t+1} &= (1 - c_t) x_t + c_t z_{t+1}, \quad
      c_t = \gamma_{max,t}^2 / \sum_{i \le t} \gamma_{max,i}^2

    The parameters are `x`, the point to evaluate and to keep. The state holds `z - x`, which starts at zero for any
    parameters. `optax.contrib.schedule_free_adamw` computes the same and keeps `y` as the parameters. Train at a
    constant learning rate after a warm-up.

    Args:
      learning_rate: `gamma`, a float or an optax schedule.
      b1: the weight of the average in the point `y` of the gradients; more than zero.
      b2: decay of the second moments.
      eps: added to the square root.
      weight_decay: decoupled weight decay, at `y`.

    Returns:
      A transformation whose method `gradient_point(params, state)` gives the point of its gradients.

    Raises:
      ValueError: an option is out of range.

    References:
      Defazio et al., The Road Less Scheduled, 2024, arXiv 2405.15682, algorithm 1.
    """
    if not 0 < b1 < 1:
        raise ValueError(f"b1 is {b1!r}; give a decay in (0, 1), such as 0.9")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay is {weight_decay!r}; give zero or a positive number")

    def init(params: optax.Params) -> ScheduleFreeAdamwState:
        return ScheduleFreeAdamwState(
            count=jnp.zeros((), jnp.int32),
            weight_sum=jnp.zeros((), jnp.float32),
            largest_rate=jnp.zeros((), jnp.float32),
            nu=jax.tree.map(jnp.zeros_like, params),
            offset=jax.tree.map(jnp.zeros_like, params),
        )

    def update(
        updates: optax.Updates, state: ScheduleFreeAdamwState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScheduleFreeAdamwState]:
        if params is None:
            raise ValueError("schedule-free-adamw moves parameters; give update() the params too")
        count = optax.safe_increment(state.count)
        rate = rate_at(learning_rate, state.count)
        largest = jnp.maximum(state.largest_rate, rate)
        weight_sum = state.weight_sum + largest**2
        share = jnp.where(weight_sum > 0, largest**2 / jnp.where(weight_sum > 0, weight_sum, 1), 0)
        correction = unbias(b2, count, jnp.float32)
        nu = jax.tree.map(lambda g, v: b2 * v + (1 - b2) * jnp.square(g), updates, state.nu)

        def ahead(g: jax.Array, v: jax.Array, x: jax.Array, d: jax.Array) -> jax.Array:
            """The new `z` less the old `x`."""
            step = g / (jnp.sqrt(v * correction.astype(v.dtype)) + jnp.asarray(eps, v.dtype))
            decay = weight_decay * (x + (1 - b1) * d) if weight_decay else 0.0
            return d - rate.astype(g.dtype) * (step + decay)

        offset = jax.tree.map(ahead, updates, nu, params, state.offset)
        moved = jax.tree.map(lambda d: share.astype(d.dtype) * d, offset)
        return moved, ScheduleFreeAdamwState(
            count=count,
            weight_sum=weight_sum,
            largest_rate=largest,
            nu=nu,
            offset=jax.tree.map(lambda d, m: d - m, offset, moved),
        )

    def gradient_point(params: optax.Params, state: ScheduleFreeAdamwState) -> optax.Params:
        return jax.tree.map(lambda x, d: x + (1 - b1) * d, params, state.offset)

    return AveragingTransformation(init, update, gradient_point)
