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
    """The signals that `locoprop` takes in place of gradients.

    Attributes:
      gradients: of the loss, a tree like the parameters.
      inputs: the inputs of each layer by its name, of shape (batch, in).
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
    r"""LocoProp-S: each dense layer takes some steps of RMSProp on a squared loss of its own.

    A layer has a matrix `W` of shape (in, out) whose last row is the bias. For an example, `a` is the layer's input
    with a 1 for the bias, and `g` is the derivative of the example's loss by `a W`. The target of the pre-activations
    is one gradient step away from them. The local loss is a mean over the batch:

    .. math::
      L(W) &= E \, || a W - (a W_t - \gamma g) ||^2 / 2, \quad
      \nabla L(W_t + D) = E[a^T a] D + \gamma \nabla_{W_t} \\
      v &\leftarrow \beta_2 v + (1 - \beta_2) (\nabla L)^2, \quad
      m \leftarrow \beta_1 m + \eta_k \nabla L / (\sqrt{v} + \epsilon), \quad D \leftarrow D - m

    for `k` from 0 to `local_steps - 1`. The rate `eta_k` falls linearly from `lr_t` to a quarter of it. `m` and `v`
    carry over from one step to the next. The local gradient needs no derivatives of single examples, only the gradient
    of the loss. So the backward pass gives that gradient and the inputs.

    The paper's regulariser is left out: few local steps take its place, as in the authors' code. The variant LocoProp-M
    is left out too. The paper's target is a step by the derivatives of the mean loss: `activation_rate` 0.01 here is 10
    there for a batch of 1000. Its local gradients are sums over the batch, and its `eps` is under the root: 3e-6 here
    is 1e-5 there.

    Args:
      learning_rate: of the local steps, a float or an optax schedule.
      loss: `loss(params, batch) -> scalar`, a mean over the batch's examples, of dense layers; hashable.
      batch: a tree of `jax.ShapeDtypeStruct`, with which the layers are found.
      b1: decay of the momentum.
      b2: decay of the second moments.
      eps: added to the square root.
      local_steps: the number of local steps.
      activation_rate: `gamma`.

    Raises:
      UsageError: the loss is not of dense layers; `init` raises it.

    References:
      Amid, Anil, Warmuth, LocoProp: Enhancing BackProp via Local Loss Optimization, 2022, arXiv 2106.06199; the local
      optimizer and its rates are those of the code that the authors published.
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
        """The change of one layer's matrix, and its new moments."""
        wide = gradient.dtype
        examples, width = inputs.shape
        rate, b1, b2, eps, gamma = (
            jnp.asarray(given[name], wide) for name in ("learning_rate", "b1", "b2", "eps", "activation_rate")
        )
        # E[a^T a] is computed once if a product with it is cheaper than one with the inputs and one with their
        # transpose.
        square = inputs.T @ inputs / examples if width <= 2 * examples else None

        def curved(moved: jax.Array) -> jax.Array:
            return inputs.T @ (inputs @ moved) / examples if square is None else square @ moved

        # There is no loop, because IREE 3.13 does not reuse memory that a loop's rounds have freed. The rates are in a
        # vector, so that all steps share one function.
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
