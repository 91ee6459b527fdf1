"""K-BFGS for dense layers as an optax transformation with a backward pass of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.optimizer._average import unbias
from sonew_compiled.optimizer._dense import split
from sonew_compiled.optimizer._graft import saturate
from sonew_compiled.optimizer._inverse_root import refreshed_root
from sonew_compiled.optimizer._own_backward import BackwardTransformation, rate_at
from sonew_compiled.optimizer._precision import wants_float32_statistics
from sonew_compiled.optimizer._refresh import refreshed
from sonew_compiled.optimizer._tapped import LayerSignals, Loss, layers_of, tapped_backward

_POWELL = 0.2


class LayerStatistics(NamedTuple):
    """The statistics that `kbfgs` keeps of a layer whose matrix, with the bias, has shape (in, out).

    Attributes:
      a: `A`, of shape (in, in).
      inverse_a: `H_A`, of shape (in, in).
      inverse_g: `H_G`, of shape (out, out).
      s: averaged change of the mean pre-activations, of shape (out,).
      y: averaged change of the mean derivatives, of shape (out,).
    """

    a: jax.Array
    inverse_a: jax.Array
    inverse_g: jax.Array
    s: jax.Array
    y: jax.Array


class KbfgsState(NamedTuple):
    """State of `kbfgs`.

    Attributes:
      count: updates done, an int32 scalar.
      mu: momentum of the gradients, a tree like the parameters.
      layers: the statistics, by the name of the layer.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in every optax state
    mu: Any
    layers: dict[str, LayerStatistics]


class KbfgsSignals(NamedTuple):
    """The signals that `kbfgs` takes in place of gradients.

    Attributes:
      layers: the signals of the layers at the current parameters.
      batch: their batch, on which the loss is differentiated once more after the step.
    """

    layers: LayerSignals
    batch: Any


def kbfgs(
    learning_rate: optax.ScalarOrSchedule,
    *,
    loss: Loss,
    batch: Any,
    b1: float = 0.9,
    b2: float = 0.9,
    eps: float = 0.3,
) -> BackwardTransformation:
    r"""K-BFGS: quasi-Newton inverses for the two Kronecker factors of each dense layer's Hessian.

    A layer has a matrix `W` of shape (in, out) whose last row is the bias. For an example, `a` is the layer's input
    with a 1 for the bias, `h = a W`, and `g` is the derivative of the example's loss by `h`. A bar is a mean over the
    batch. A plus marks a value after the step, on the same batch:

    .. math::
      m &\leftarrow \beta_1 m + (1 - \beta_1) \nabla_W, \quad
      A \leftarrow \beta_2 A + (1 - \beta_2) E[a a^T] \\
      W &\leftarrow W - \eta \, H_A m H_G \\
      s &\leftarrow \beta_1 s + (1 - \beta_1) (\bar h^+ - \bar h), \quad
      y \leftarrow \beta_1 y + (1 - \beta_1) (\bar g^+ - \bar g) \\
      H_G &\leftarrow BFGS(H_G, \tilde s, \tilde y), \quad (\tilde s, \tilde y) = DD(s, y) \\
      H_A &\leftarrow BFGS(H_A, s_A, (A + \sqrt{\epsilon} I) s_A), \quad s_A = H_A \bar a

    `m` is bias-corrected. `A` starts from its value in the first batch, `H_A` from the inverse of the damped `A`, and
    `H_G` from the identity. A step takes two forward and backward passes.

    Args:
      learning_rate: `eta`, a float or an optax schedule.
      loss: `loss(params, batch) -> scalar`, a mean over the batch's examples, of dense layers; hashable.
      batch: a tree of `jax.ShapeDtypeStruct`, with which the layers are found.
      b1: decay of the momentum, of `s` and of `y`.
      b2: decay of `A`.
      eps: damping, below 1: `sqrt(eps)` is added to `A`, and bounds `H_G` in double damping.

    Raises:
      UsageError: the loss is not of dense layers, or the precision policy keeps the statistics in 16 bits; `init`
        raises it.

    References:
      Goldfarb, Ren, Bahamou, Practical Quasi-Newton Methods for Training Deep Neural Networks, 2020, arXiv 2006.08877
      (K-BFGS, not the variant of limited memory; `DD` is `double_damped`).
    """
    tapped = tapped_backward(loss, "kbfgs")

    def init(params: optax.Params) -> KbfgsState:
        wants_float32_statistics("kbfgs", "updates inverses that must stay positive definite")
        leaves = jax.tree.leaves(params)

        def statistics(w: jax.Array) -> LayerStatistics:
            rows, columns = w.shape
            return LayerStatistics(
                a=jnp.zeros((rows, rows), w.dtype),
                inverse_a=jnp.eye(rows, dtype=w.dtype),
                inverse_g=jnp.eye(columns, dtype=w.dtype),
                s=jnp.zeros((columns,), w.dtype),
                y=jnp.zeros((columns,), w.dtype),
            )

        layers = layers_of(loss, params, batch, "kbfgs")
        return KbfgsState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            layers={layer.name: statistics(layer.join(leaves)) for layer in layers},
        )

    def backward(params: Any, batch: Any, cotangent: Any) -> tuple[jax.Array, KbfgsSignals]:
        value, signals = tapped(params, batch, cotangent)
        return value, KbfgsSignals(signals, batch)

    def update(
        signals: KbfgsSignals, state: KbfgsState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, KbfgsState]:
        if params is None:
            raise ValueError("kbfgs differentiates the loss at the moved parameters; give update() the params too")
        before = signals.layers
        layers = layers_of(loss, params, batch, "kbfgs")
        first = state.count == 0
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda g, m: b1 * m + (1 - b1) * saturate(g), before.gradients, state.mu)
        momentum = [unbias(b1, count, m.dtype).astype(m.dtype) * m for m in jax.tree.leaves(mu)]

        inputs = {layer.name: saturate(layer.with_ones(before.inputs[layer.name])) for layer in layers}
        averages, damped = {}, {}
        for name, a in inputs.items():
            square, old = a.T @ a / a.shape[0], state.layers[name].a
            averages[name] = jnp.where(first, square, b2 * old + (1 - b2) * square)
            damped[name] = averages[name] + _root(eps, a) * jnp.eye(a.shape[1], dtype=a.dtype)
        inverses = refreshed(
            first,
            lambda new, old: {name: refreshed_root(new[name], old[name], 1, 0.0) for name in new},
            damped,
            {name: each.inverse_a for name, each in state.layers.items()},
        )

        rate = rate_at(learning_rate, state.count)
        steps = {}
        for layer in layers:
            direction = inverses[layer.name] @ layer.join(momentum) @ state.layers[layer.name].inverse_g
            steps[layer.name] = -rate.astype(direction.dtype) * direction
        updates = split(layers, steps, params)
        moved = optax.apply_updates(params, updates)

        # The derivatives of an example's own loss are `examples` times those of the mean loss.
        examples = next(iter(inputs.values())).shape[0]
        _, after = tapped(moved, signals.batch, jnp.asarray(examples, jnp.float32))
        old_leaves, new_leaves = jax.tree.leaves(params), jax.tree.leaves(moved)
        statistics = {}
        for layer in layers:
            name, kept = layer.name, state.layers[layer.name]
            a, dtype = inputs[name], kept.a.dtype
            mean = jnp.mean(a, axis=0)
            new_mean = jnp.mean(layer.with_ones(after.inputs[name].astype(dtype)), axis=0)
            change = new_mean @ layer.join(new_leaves) - mean @ layer.join(old_leaves)
            turn = jnp.mean(after.derivatives[name].astype(dtype), axis=0) - jnp.sum(before.derivatives[name], axis=0)
            s = b1 * kept.s + (1 - b1) * saturate(change)
            y = b1 * kept.y + (1 - b1) * saturate(turn)
            along = inverses[name] @ mean
            statistics[name] = LayerStatistics(
                a=averages[name],
                inverse_a=bfgs(inverses[name], along, damped[name] @ along),
                inverse_g=bfgs(kept.inverse_g, *double_damped(kept.inverse_g, s, y, _root(eps, s))),
                s=s,
                y=y,
            )
        return updates, KbfgsState(count=count, mu=mu, layers=statistics)

    return BackwardTransformation(init, update, backward)


def bfgs(inverse: jax.Array, s: jax.Array, y: jax.Array) -> jax.Array:
    r"""The BFGS update of an inverse `H`: it maps `y` to `s`, and stays positive definite if `s^T y > 0`.

    .. math::
      H^+ = (I - \rho s y^T) H (I - \rho y s^T) + \rho s s^T, \quad \rho = 1 / s^T y

    If `s^T y` is not positive, `H` stays as it is.

    Args:
      inverse: `H`, of shape (n, n).
      s: of shape (n,).
      y: of shape (n,).
    """
    product = jnp.dot(s, y)
    usable = product > jnp.finfo(product.dtype).tiny
    rho = jnp.where(usable, 1 / jnp.where(usable, product, jnp.ones_like(product)), jnp.zeros_like(product))
    hy = inverse @ y
    # `rho` multiplies one vector at a time, because its square may be infinite.
    scaled = rho * s
    cross = scaled[:, None] * hy
    return inverse + (rho * jnp.dot(y, hy) + 1) * (scaled[:, None] * s) - (cross + cross.T)


def double_damped(inverse: jax.Array, s: jax.Array, y: jax.Array, smallest: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""The pair after double damping, which bounds its curvature from below: first `s` is damped, then `y`.

    .. math::
      \tilde s &= \theta_1 s + (1 - \theta_1) H y \quad
      \text{so that } \tilde s^T y \ge 0.2 \, y^T H y \\
      \tilde y &= \theta_2 y + (1 - \theta_2) \tilde s \quad
      \text{so that } \tilde s^T \tilde y \ge \mu \, \tilde s^T \tilde s

    The first is Powell's damping for `H`, the second Powell's damping for the identity, as in the authors' code.

    Args:
      inverse: `H`, of shape (n, n).
      s: of shape (n,).
      y: of shape (n,).
      smallest: `mu`, a scalar below 1.
    """
    hy = inverse @ y
    s = _damped(s, hy, jnp.dot(s, y), jnp.dot(y, hy), jnp.asarray(_POWELL, s.dtype))
    return s, _damped(y, s, jnp.dot(s, y), jnp.dot(s, s), smallest)


def _damped(x: jax.Array, towards: jax.Array, have: jax.Array, whole: jax.Array, share: jax.Array) -> jax.Array:
    """`x` moved towards another vector until a linear function of it reaches a share of the value there.

    The function is `have` at `x` and `whole` at `towards`.
    """
    short = have < share * whole
    theta = jnp.where(short, (1 - share) * whole / jnp.where(short, whole - have, jnp.ones_like(have)), 1)
    return theta * x + (1 - theta) * towards


def _root(eps: float, like: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.asarray(eps, like.dtype))
