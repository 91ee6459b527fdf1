"""NorMuon as an optax transformation: orthogonal directions, normalised neuron by neuron."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from sonew_compiled.optimizer._precision import in_float32

# The root mean square of the entries of Adam's steps, which one learning rate for all tensors needs.
_ROOT_MEAN_SQUARE = 0.2


class ScaleByNeuronsState(NamedTuple):
    """State of `scale_by_neurons`.

    Attributes:
      nu: `v`, a tree with a vector of one number a column at each leaf.
    """

    nu: Any


def scale_by_neurons(*, b2: float = 0.95, eps: float = 1e-8) -> optax.GradientTransformation:
    r"""Divides each column of a matrix, the weights of one neuron, by a running root mean square of its entries.

    .. math::
      v_t = \beta_2 v_{t-1} + (1 - \beta_2) \, \mathrm{mean}_i(O_{ij}^2), \quad
      \hat O_{ij} = O_{ij} / (\sqrt{v_j} + \epsilon), \quad u_t = 0.2 \sqrt{m n} \, \hat O / ||\hat O||_F

    Args:
      b2: decay of `v`.
      eps: added to the square root.

    References:
      Li, Liu, Liang, Chen, Zhao, NorMuon: Making Muon more efficient and scalable, 2025, arXiv 2510.05491, algorithm 1.
    """

    def init(params: optax.Params) -> ScaleByNeuronsState:
        return ScaleByNeuronsState(nu=jax.tree.map(lambda p: jnp.zeros(p.shape[1:], p.dtype), params))

    def update(
        updates: optax.Updates, state: ScaleByNeuronsState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByNeuronsState]:
        del params
        nu = jax.tree.map(lambda o, v: b2 * v + (1 - b2) * jnp.mean(jnp.square(o), axis=0), updates, state.nu)

        def scaled(o: jax.Array, v: jax.Array) -> jax.Array:
            o = o / (jnp.sqrt(v) + jnp.asarray(eps, o.dtype))
            length = jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(o))), jnp.finfo(o.dtype).tiny)
            return _ROOT_MEAN_SQUARE * o / length

        return jax.tree.map(scaled, updates, nu), ScaleByNeuronsState(nu=nu)

    return optax.GradientTransformation(init, update)


def normuon(learning_rate: optax.ScalarOrSchedule, *, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """NorMuon: `O_t` of Muon without Nesterov's momentum, then `scale_by_neurons`; other ranks follow Adam.

    Args:
      learning_rate: a float or an optax schedule.
      b1: decay of the momentum of matrices; Adam's is 0.9.
      b2: decay of the second moments, of neurons and of Adam.
      eps: added to the square roots, and to the norm that Muon divides by.
    """
    muon = optax.contrib.scale_by_muon(
        beta=b1,
        eps=eps,
        nesterov=False,
        weight_dimension_numbers=lambda matrices: jax.tree.map(
            lambda _: optax.contrib.MuonDimensionNumbers(), matrices
        ),
    )
    kinds = optax.partition(
        {
            "matrix": optax.chain(muon, scale_by_neurons(b2=b2, eps=eps)),
            "other": optax.scale_by_adam(b1=0.9, b2=b2, eps=eps),
        },
        lambda params: jax.tree.map(lambda p: "matrix" if p.ndim == 2 and p.size else "other", params),
    )
    whole = optax.chain(kinds, optax.scale_by_learning_rate(learning_rate))
    return optax.GradientTransformation(whole.init, in_float32(whole.update))
