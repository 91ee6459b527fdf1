"""LocoProp-S for dense layers as an optax transformation with a backward pass of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.optimizer._dense import split
from sonew_compiled.optimizer._graft import saturate
from sonew_compiled.optimizer._own_backward import BackwardTransformation, rate_at
from sonew_compiled.optimizer._precision import in_float32
from sonew_compiled.optimizer._tapped import Loss, layers_of, tapped_backward

_LAST_SHARE = 0.25


class LocopropState(NamedTuple):
    """State of `locoprop`.

    Attributes:
      count: updates done, an int32 scalar.
      mu: momentum of the local steps, a tree like the parameters.
      nu: their second moments, a tree like the parameters.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in every optax state
    mu: Any
    nu: Any


class LocopropSignals(NamedTuple):
    """What `locoprop` takes in place of gradients.

    Attributes:
      gradients: of the loss, a tree like the parameters.
      inputs: by the name of each layer what goes into it, of shape (batch, in).
    """

    gradients: Any
    inputs: dict[str, jax.Array]


def locoprop(
    learning_rate: optax.ScalarOrSchedule,
    *,
    loss: Loss,
    batch: Any,
    b1: float = 0.999,
    b2: float = 0.9,
    eps: float = 3e-6,
    local_steps: int = 10,
    activation_rate: float = 0.01,
) -> BackwardTransformation:
    r"""LocoProp-S: each dense layer does some steps of RMSProp on a squared loss of its own.

    A layer has a matrix `W` of shape (in, out), with its bias for a last row; `a` is what goes into it for an example,
    with a 1 for the bias, and `g` the derivative of the example's loss by `a W`. The target of the pre-activations is a
    gradient step from where they are, and the local loss is a mean over the batch:

    .. math::
      L(W) &= E \, || a W - (a W_t - \gamma g) ||^2 / 2, \quad
      \nabla L(W_t + D) = E[a^T a] D + \gamma \nabla_{W_t} \\
      v &\leftarrow \beta_2 v + (1 - \beta_2) (\nabla L)^2, \quad
      m \leftarrow \beta_1 m + \eta_k \nabla L / (\sqrt{v} + \epsilon), \quad D \leftarrow D - m

    for `k` from 0 to `local_steps - 1`, with the rate `eta_k` falling linearly from `lr_t` to a quarter of it. `m` and
    `v` go on from one step to the next. The local gradient needs no derivatives of examples beyond the gradient of the
    loss, so this is what the backward pass gives besides the inputs.

    Of the paper's choices this leaves out the regulariser, in place of which there are few local steps as in the
    authors' code, and the variant LocoProp-M. The target there is a step by the derivatives of the mean loss:
    `activation_rate` 0.01 here is 10 there for a batch of 1000. There, local gradients are sums over the batch, and
    `eps` is under the root: 3e-6 here is 1e-5 there.

    Args:
      learning_rate: of the local steps, a float or an optax schedule.
      loss: `loss(params, batch) -> scalar`, a mean over the batch's examples, of dense layers; hashable.
      batch: a tree of `jax.ShapeDtypeStruct`, by which the layers are found.
      b1: decay of the momentum.
      b2: decay of the second moments.
      eps: added to the square root.
      local_steps: how many.
      activation_rate: `gamma`.

    Raises:
      UsageError: when it is initialised, for a loss that is not of dense layers.

    References:
      Amid, Anil, Warmuth, LocoProp: Enhancing BackProp via Local Loss Optimization, 2022, arXiv 2106.06199; the local
      optimizer and its rates as in the code that they published with it.
    """
    tapped = tapped_backward(loss, "locoprop")

    def init(params: optax.Params) -> LocopropState:
        layers_of(loss, params, batch, "locoprop")
        return LocopropState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            nu=jax.tree.map(jnp.zeros_like, params),
        )

    def backward(params: Any, batch: Any, cotangent: Any) -> tuple[jax.Array, LocopropSignals]:
        value, signals = tapped(params, batch, cotangent)
        return value, LocopropSignals(signals.gradients, signals.inputs)

    def update(
        signals: LocopropSignals, state: LocopropState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, LocopropState]:
        del params
        layers = layers_of(loss, signals.gradients, batch, "locoprop")
        gradients = [saturate(g) for g in jax.tree.leaves(signals.gradients)]
        mu, nu = jax.tree.leaves(state.mu), jax.tree.leaves(state.nu)
        given = {
            "learning_rate": rate_at(learning_rate, state.count),
            "b1": b1,
            "b2": b2,
            "eps": eps,
            "activation_rate": activation_rate,
        }
        run = _of_steps(local_steps)
        moved, momentum, moments = {}, {}, {}
        for layer in layers:
            moved[layer.name], momentum[layer.name], moments[layer.name] = run(
                layer.join(gradients),
                saturate(layer.with_ones(signals.inputs[layer.name])),
                layer.join(mu),
                layer.join(nu),
                given,
            )
        like = signals.gradients
        return split(layers, moved, like), LocopropState(
            count=optax.safe_increment(state.count),
            mu=split(layers, momentum, like),
            nu=split(layers, moments, like),
        )

    return BackwardTransformation(init, update, backward)


@functools.cache
def _of_steps(count: int) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    def local_steps(
        gradient: jax.Array, inputs: jax.Array, mu: jax.Array, nu: jax.Array, given: Mapping[str, Any]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """How far one layer's matrix moves, and its new moments."""
        wide = gradient.dtype
        examples, width = inputs.shape
        rate, b1, b2, eps, gamma = (
            jnp.asarray(given[name], wide) for name in ("learning_rate", "b1", "b2", "eps", "activation_rate")
        )
        # E[a^T a] once, where a product with it is cheaper than one with the inputs and one with their transpose.
        square = inputs.T @ inputs / examples if width <= 2 * examples else None

        def curved(moved: jax.Array) -> jax.Array:
            return inputs.T @ (inputs @ moved) / examples if square is None else square @ moved

        # No loop: IREE 3.13 forgets memory that its rounds have freed. Rates are read from a vector, so that one code
        # does for all steps.
        rates = rate * jnp.maximum(1 - jnp.arange(count, dtype=wide) / count, _LAST_SHARE)
        pull = gamma * gradient
        moved = jnp.zeros_like(gradient)
        for index in range(count):
            local = curved(moved) + pull if index else pull
            nu = b2 * nu + (1 - b2) * jnp.square(local)
            mu = b1 * mu + rates[index] * local / (jnp.sqrt(nu) + eps)
            moved = moved - mu
        return moved, mu, nu

    return in_float32(local_steps)
