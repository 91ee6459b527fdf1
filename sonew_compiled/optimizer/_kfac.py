"""K-FAC for dense layers as an optax transformation with a backward pass of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.optimizer._average import unbias
from sonew_compiled.optimizer._dense import split
from sonew_compiled.optimizer._graft import saturate
from sonew_compiled.optimizer._inverse_root import refreshed_root
from sonew_compiled.optimizer._own_backward import BackwardTransformation, with_learning_rate
from sonew_compiled.optimizer._refresh import refreshed
from sonew_compiled.optimizer._tapped import LayerSignals, Loss, layers_of, tapped_backward

Factors = dict[str, tuple[jax.Array, jax.Array]]


class ScaleByKfacState(NamedTuple):
    """State of `scale_by_kfac`.

    Attributes:
      count: updates done, an int32 scalar.
      mu: momentum of the gradients, a tree like the parameters.
      factors: by the name of the layer, `A` and `G` of shape (in, in) and (out, out); a bias makes `in` one more.
      inverses: likewise, the inverses of the damped factors at the last refresh.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in every optax state
    mu: Any
    factors: Factors
    inverses: Factors


def scale_by_kfac(
    *, loss: Loss, batch: Any, b1: float = 0.9, b2: float = 0.95, eps: float = 0.1, precond_interval: int = 20
) -> BackwardTransformation:
    r"""Precondition updates by a Kronecker-factored Fisher matrix of each dense layer.

    A layer has a matrix `W` of shape (in, out) whose last row is the bias. For an example, `a` is the layer's input
    with a 1 for the bias, and `g` is the derivative of the example's loss by `a W`. `E` is the mean over the batch:

    .. math::
      A_t &= \beta_2 A_{t-1} + (1 - \beta_2) E[a a^T], \quad G_t = \beta_2 G_{t-1} + (1 - \beta_2) E[g g^T] \\
      \pi &= \sqrt{\frac{tr(A_t) / \dim A}{tr(G_t) / \dim G}} \\
      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) \nabla_W \\
      v_t &= (A_t + \pi \sqrt{\epsilon} I)^{-1} m_t (G_t + \sqrt{\epsilon} / \pi I)^{-1}
      \quad \text{with the inverses of the last refresh} \\
      u_t &= v_t / \max(1, \sqrt{\textstyle \sum \langle v_t, m_t \rangle})
      \quad \text{summed over all layers}

    `A`, `G` and `m` are bias-corrected. The derivatives are those of the loss that is trained, so the factors belong to
    the empirical Fisher matrix. The paper samples labels from the model instead.

    The sum is the squared length of `v` in the metric of the damped Fisher matrix. In that metric no step is longer
    than the learning rate, and so no step changes the model by a divergence of more than half the squared rate, in
    nats. Without this limit runs diverge between two inversions. The paper's choice of damping, learning rate and
    momentum by a quadratic model is left out, and so is its block-tridiagonal variant.

    Args:
      loss: `loss(params, batch) -> scalar`, a mean over the batch's examples, of dense layers; hashable.
      batch: a tree of `jax.ShapeDtypeStruct`, with which the layers are found.
      b1: decay of the momentum.
      b2: decay of the factors.
      eps: damping, in the units of the Fisher matrix.
      precond_interval: steps from one computation of the inverses to the next; the first step computes them.

    Raises:
      UsageError: the loss is not of dense layers; `init` raises it.

    References:
      Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature, 2015, arXiv
      1503.05671, sections 3 (the factors), 4.2 (the block-diagonal inverse), 5 (their averages) and 6.3 (the damping).
      Ba, Grosse, Martens, Distributed Second-Order Optimization using Kronecker-Factored Approximations, ICLR 2017,
      section 5 (the limit).
    """

    def init(params: optax.Params) -> ScaleByKfacState:
        leaves = jax.tree.leaves(params)

        def sides(make: Any) -> Factors:
            shapes = {layer.name: layer.join(leaves) for layer in layers_of(loss, params, batch, "kfac")}
            return {
                name: (make(w.shape[0], dtype=w.dtype), make(w.shape[1], dtype=w.dtype)) for name, w in shapes.items()
            }

        return ScaleByKfacState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            factors=sides(lambda n, dtype: jnp.zeros((n, n), dtype)),
            inverses=sides(jnp.eye),
        )

    def update(
        signals: LayerSignals, state: ScaleByKfacState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByKfacState]:
        del params
        layers = layers_of(loss, signals.gradients, batch, "kfac")
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda g, m: b1 * m + (1 - b1) * saturate(g), signals.gradients, state.mu)
        factors = {}
        for layer in layers:
            a = saturate(layer.with_ones(signals.inputs[layer.name]))
            g = saturate(a.shape[0] * signals.derivatives[layer.name])
            old_a, old_g = state.factors[layer.name]
            factors[layer.name] = (
                b2 * old_a + (1 - b2) * (a.T @ a / a.shape[0]),
                b2 * old_g + (1 - b2) * (g.T @ g / a.shape[0]),
            )
        inverses = refreshed(
            state.count % precond_interval == 0,
            lambda new, old: {name: _inverses(new[name], old[name], b2, count, eps) for name in new},
            factors,
            state.inverses,
        )
        leaves = [unbias(b1, count, m.dtype).astype(m.dtype) * m for m in jax.tree.leaves(mu)]
        moved: dict[str, jax.Array] = {}
        square: Any = 0
        for layer in layers:
            left, right = inverses[layer.name]
            mean = layer.join(leaves)
            moved[layer.name] = left @ mean @ right
            square += jnp.sum(moved[layer.name] * mean, dtype=jnp.promote_types(mean.dtype, jnp.float32))
        shorter = 1 / jnp.sqrt(jnp.maximum(square, 1))
        moved = {name: shorter.astype(u.dtype) * u for name, u in moved.items()}
        return split(layers, moved, mu), ScaleByKfacState(count=count, mu=mu, factors=factors, inverses=inverses)

    return BackwardTransformation(init, update, tapped_backward(loss, "kfac"))


def kfac(
    learning_rate: optax.ScalarOrSchedule,
    *,
    loss: Loss,
    batch: Any,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 0.1,
    precond_interval: int = 20,
) -> BackwardTransformation:
    """The K-FAC optimizer: `w <- w - lr_t u_t`, `u_t` and all options of `scale_by_kfac`.

    Example:
      >>> from sonew_compiled.models import autoencoder
      >>> tx = kfac(1.0, loss=autoencoder.loss, batch=autoencoder.batch(100))
      >>> # loss, signals = tx.backward(params, batch, 1.0)
      >>> # updates, state = tx.update(signals, state, params)
    """
    scale = scale_by_kfac(loss=loss, batch=batch, b1=b1, b2=b2, eps=eps, precond_interval=precond_interval)
    return with_learning_rate(scale, learning_rate)


def _inverses(
    factors: tuple[jax.Array, jax.Array], old: tuple[jax.Array, jax.Array], b2: float, count: jax.Array, eps: float
) -> tuple[jax.Array, jax.Array]:
    """The inverses of one layer's damped factors; the old inverse if the iteration did not converge."""
    a, g = (unbias(b2, count, factor.dtype).astype(factor.dtype) * factor for factor in factors)
    root = jnp.sqrt(jnp.asarray(eps, a.dtype))
    mean_a, mean_g = jnp.trace(a) / a.shape[0], jnp.trace(g) / g.shape[0]
    # If all derivatives or all inputs are zero, there is nothing to balance.
    known = (mean_a > 0) & (mean_g > 0)
    pi = jnp.where(known, jnp.sqrt(mean_a / jnp.where(known, mean_g, jnp.ones_like(mean_g))), jnp.ones_like(mean_a))
    a = a + pi * root * jnp.eye(a.shape[0], dtype=a.dtype)
    g = g + root / pi * jnp.eye(g.shape[0], dtype=g.dtype)
    return refreshed_root(a, old[0], 1, 0.0), refreshed_root(g, old[1], 1, 0.0)
