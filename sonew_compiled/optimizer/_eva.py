"""Eva for dense layers as an optax transformation with a backward pass of its own: K-FAC with factors of rank one."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.optimizer._dense import split
from sonew_compiled.optimizer._graft import saturate
from sonew_compiled.optimizer._own_backward import BackwardTransformation, with_learning_rate
from sonew_compiled.optimizer._tapped import LayerSignals, Loss, layers_of, tapped_backward

Vectors = dict[str, tuple[jax.Array, jax.Array]]


class ScaleByEvaState(NamedTuple):
    """State of `scale_by_eva`.

    Attributes:
      count: updates done, an int32 scalar.
      mu: `M`, the momentum of the preconditioned gradients, a tree like the parameters.
      vectors: by the name of the layer, `a` and `g` of shape (in,) and (out,); a bias makes `in` one more.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in every optax state
    mu: Any
    vectors: Vectors


def scale_by_eva(
    *, loss: Loss, batch: Any, b1: float = 0.9, b2: float = 0.05, eps: float = 0.03
) -> BackwardTransformation:
    r"""Precondition updates by a Fisher matrix of each dense layer, whose Kronecker factors have rank one.

    A layer has a matrix of shape (in, out) whose last row is the bias, and the gradient `G`. For an example, `x` is the
    layer's input with a 1 for the bias, and `d` is the derivative of the example's loss by the layer's output. `E` is
    the mean over the batch:

    .. math::
      a_t &= \beta_2 a_{t-1} + (1 - \beta_2) E[x], \quad g_t = \beta_2 g_{t-1} + (1 - \beta_2) E[d] \\
      V_t &= \frac{1}{\epsilon} \left(G_t - \frac{a_t^T G_t g_t}{\epsilon + ||a_t||^2 ||g_t||^2} a_t g_t^T\right) \\
      M_t &= \beta_1 M_{t-1} + V_t / \max(1, \sqrt{\textstyle \sum \langle V_t, G_t \rangle})
      \quad \text{summed over all layers}

    `V` is the gradient times the inverse of `\epsilon I + (a a^T) \otimes (g g^T)`, by the Sherman-Morrison formula.
    The first step takes the means of the first batch for `a` and `g`.

    The paper bounds the sum under the root, times the squared learning rate, by a setting of its own. Here that setting
    is the squared learning rate, as it is with `kfac`: the rate is the longest step before momentum, measured by the
    damped Fisher matrix.

    Args:
      loss: `loss(params, batch) -> scalar`, a mean over the batch's examples, of dense layers; hashable.
      batch: a tree of `jax.ShapeDtypeStruct`, with which the layers are found.
      b1: decay of the momentum.
      b2: decay of `a` and `g`; 0.05 is the paper's weight of 0.95 for the new vectors.
      eps: damping, in the units of the Fisher matrix.

    Raises:
      UsageError: the loss is not of dense layers; `init` raises it.

    References:
      Zhang, Shi, Li, Eva: Practical Second-order Optimization with Kronecker-vectorized Approximation, ICLR 2023,
      sections 3.1 and 3.2; arXiv 2308.02123.
    """

    def init(params: optax.Params) -> ScaleByEvaState:
        leaves = jax.tree.leaves(params)
        matrices = {layer.name: layer.join(leaves) for layer in layers_of(loss, params, batch, "eva")}
        return ScaleByEvaState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            vectors={
                name: (jnp.zeros(w.shape[:1], w.dtype), jnp.zeros(w.shape[1:], w.dtype)) for name, w in matrices.items()
            },
        )

    def update(
        signals: LayerSignals, state: ScaleByEvaState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByEvaState]:
        del params
        layers = layers_of(loss, signals.gradients, batch, "eva")
        leaves = [saturate(leaf) for leaf in jax.tree.leaves(signals.gradients)]
        vectors: Vectors = {}
        moved: dict[str, jax.Array] = {}
        square: Any = 0
        for layer in layers:
            inputs = saturate(layer.with_ones(signals.inputs[layer.name]))
            # The loss is a mean, so that the sum of its derivatives is the mean of the examples' own.
            seen = jnp.mean(inputs, axis=0), jnp.sum(saturate(signals.derivatives[layer.name]), axis=0)
            a, g = (
                jnp.where(state.count == 0, new, b2 * old + (1 - b2) * new)
                for old, new in zip(state.vectors[layer.name], seen, strict=True)
            )
            vectors[layer.name] = a, g
            gradient = layer.join(leaves)
            moved[layer.name] = _solved(gradient, a, g, jnp.asarray(eps, gradient.dtype))
            square += jnp.sum(moved[layer.name] * gradient, dtype=jnp.promote_types(gradient.dtype, jnp.float32))
        shorter = 1 / jnp.sqrt(jnp.maximum(square, 1))
        steps = split(layers, {name: shorter.astype(v.dtype) * v for name, v in moved.items()}, signals.gradients)
        mu = jax.tree.map(lambda m, v: b1 * m + v, state.mu, steps)
        return mu, ScaleByEvaState(count=optax.safe_increment(state.count), mu=mu, vectors=vectors)

    return BackwardTransformation(init, update, tapped_backward(loss, "eva"))


def eva(
    learning_rate: optax.ScalarOrSchedule,
    *,
    loss: Loss,
    batch: Any,
    b1: float = 0.9,
    b2: float = 0.05,
    eps: float = 0.03,
) -> BackwardTransformation:
    """The Eva optimizer: `w <- w - lr_t M_t`, `M_t` and all options of `scale_by_eva`."""
    return with_learning_rate(scale_by_eva(loss=loss, batch=batch, b1=b1, b2=b2, eps=eps), learning_rate)


def _solved(gradient: jax.Array, a: jax.Array, g: jax.Array, eps: jax.Array) -> jax.Array:
    """The gradient times the inverse of `eps I + (a a^T) x (g g^T)`."""
    # Where most of the gradient is along both vectors, the difference cancels: one sum after the other rounds less.
    along = jnp.sum(a * jnp.sum(gradient * g, axis=1))
    whole = eps + jnp.sum(jnp.square(a)) * jnp.sum(jnp.square(g))
    return (gradient - (along / whole) * a[:, None] * g) / eps
