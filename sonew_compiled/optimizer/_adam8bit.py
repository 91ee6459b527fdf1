"""Adam with its state in 8 bits as an optax transformation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.optimizer._average import unbias
from sonew_compiled.optimizer._graft import saturate
from sonew_compiled.optimizer._quantize import Quantized, dequantize, quantize, zeros


class ScaleByAdam8bitState(NamedTuple):
    """State of `scale_by_adam_8bit`.

    Attributes:
      count: updates done, an int32 scalar.
      mu: `m`, a tree like the parameters of `Quantized` arrays, signed.
      nu: `v`, likewise, unsigned.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in every optax state
    mu: Any
    nu: Any


def scale_by_adam_8bit(*, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    r"""Adam whose moments are stored in 8 bits an entry, in blocks of 256 with a scale each.

    .. math::
      m_t &= \beta_1 Q^{-1}(m_{t-1}) + (1 - \beta_1) g_t, \quad
      v_t = \beta_2 Q^{-1}(v_{t-1}) + (1 - \beta_2) g_t^2 \\
      u_t &= \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    `Q(m_t)` and `Q(v_t)` are stored; the step itself uses the unrounded moments. A positive `v` never becomes zero.

    Args:
      b1: decay of the momentum.
      b2: decay of the second moments.
      eps: added to the square root.

    References:
      Dettmers, Lewis, Shleifer, Zettlemoyer, 8-bit Optimizers via Block-wise Quantization, 2021, arXiv 2110.02861,
      equation 2 and section 2; the number format is described at `Quantized`. Kingma and Ba 2014, arXiv 1412.6980,
      algorithm 1.
    """

    def init(params: optax.Params) -> ScaleByAdam8bitState:
        return ScaleByAdam8bitState(
            count=jnp.zeros((), jnp.int32), mu=jax.tree.map(zeros, params), nu=jax.tree.map(zeros, params)
        )

    def update(
        updates: optax.Updates, state: ScaleByAdam8bitState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByAdam8bitState]:
        del params
        count = optax.safe_increment(state.count)
        unbias1, unbias2 = (unbias(decay, count, jnp.float32) for decay in (b1, b2))
        tree: Any
        leaves, tree = jax.tree.flatten(updates)

        def move(g: jax.Array, mu: Quantized, nu: Quantized) -> tuple[jax.Array, Quantized, Quantized]:
            g = saturate(g)
            m = b1 * dequantize(mu, g.shape, signed=True) + (1 - b1) * g
            v = b2 * dequantize(nu, g.shape, signed=False) + (1 - b2) * jnp.square(g)
            denominator = jnp.sqrt(v * unbias2.astype(v.dtype)) + jnp.asarray(eps, v.dtype)
            u = m * unbias1.astype(m.dtype) / denominator
            return u, quantize(m, signed=True), quantize(v, signed=False)

        moved = [
            move(g, mu, nu)
            for g, mu, nu in zip(leaves, tree.flatten_up_to(state.mu), tree.flatten_up_to(state.nu), strict=True)
        ]
        u, mu, nu = (tree.unflatten(column) for column in zip(*moved, strict=True)) if moved else (updates,) * 3
        return u, ScaleByAdam8bitState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)


def adam_8bit(
    learning_rate: optax.ScalarOrSchedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Adam with its state in 8 bits: `w <- w - lr_t u_t`, `u_t` and all options of `scale_by_adam_8bit`."""
    return optax.chain(scale_by_adam_8bit(b1=b1, b2=b2, eps=eps), optax.scale_by_learning_rate(learning_rate))
