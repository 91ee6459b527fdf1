"""Sparsified Online Newton as an optax transformation."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.optimizer._sonew_options import SonewOptions, is_known
from sonew_compiled.optimizer._sonew_step import updated
from sonew_compiled.optimizer._static import static


class ScaleBySonewState(NamedTuple):
    """State of `scale_by_sonew`; unless it is in 8 bits, every array of a leaf has that leaf's shape and dtype.

    Attributes:
      count: updates done, an int32 scalar.
      mu: `m`, the momentum, a tree like the parameters.
      bands: `H` without bias correction, a tree like the parameters with a tuple of bands at each leaf: band `d`
        holds `H[j + d, j]` at entry `j` of the chain. Rank 1 leaves that follow Adam have the diagonal alone.

    In 8 bits, `mu` and the diagonal are codes with scales (`Quantized`), and a band of edges is an int8 array of its
    leaf's shape, 127 times the correlations.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as in every optax state
    mu: Any
    bands: Any


@static("band", "graft_eps")
def scale_by_sonew(
    *,
    band: int = 1,
    b1: float = 0.9,
    b2: float = 0.99,
    eps: float = 1e-6,
    eps_mode: str = "relative",
    grafting: str = "adam",
    graft_eps: float = 1e-8,
    rank1: str = "adam",
    flatten: str = "column",
    tolerance: float | None = None,
    state: str = "float",
) -> optax.GradientTransformation:
    r"""Precondition updates by Sparsified Online Newton.

    For each tensor, flattened to `n` entries whose sparsity graph `G` joins entries at most `band` apart:

    .. math::
      H_t &= \beta_2 H_{t-1} + (1 - \beta_2) P_G(g_t g_t^T), \quad \hat H_t = H_t / (1 - \beta_2^t) + \text{damping} \\
      X_t &= \arg\min_{X \succ 0,\, X \in S(G)} -\log\det X + \mathrm{Tr}(X \hat H_t) \\
      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \quad u_t = s_t X_t m_t / (1 - \beta_1^t)

    Args:
      band: off-diagonals of the preconditioner: 0 diagonal, 1 tridiagonal, b banded. Costs `O(n b^3)` arithmetic and
        `O(n b)` memory.
      b1: decay of the momentum `m`.
      b2: decay of the statistics `H`.
      eps: damping, added to the diagonal.
      eps_mode: "relative": `max(eps * max_i(H[i,i] + max_k |H[i,k]|), 1e-16)` for each tensor; "absolute": `eps`.
      grafting: the optimizer whose step length the direction takes, tensor by tensor: "adam", "sgd", "momentum",
        "rmsprop", or "none" for `s_t = 1`.
      graft_eps: added to the square root in the adam and rmsprop grafts.
      rank1: the rule for tensors of rank 0 and 1: "adam" or "sonew".
      flatten: "column" chains the inputs of one output of a `(in, out)` matrix (of more axes, all but the last are
        inputs); "row" follows memory.
      tolerance: `gamma` of edge removal. The default is the machine epsilon of the dtype in which the statistics are
        stored: their own, or that of the precision policy under which the optimizer is compiled. In 8 bits it is 2/127.
      state: "float" has the dtype of the parameters; "int8", for a band of 0 or 1, keeps 8 bits of each number:
        `band + 2` bytes a parameter, and two scales for 256 parameters.

    Returns:
      An optax transformation.

    Raises:
      ValueError: an option is out of range.

    Example:
      >>> import optax
      >>> tx = optax.chain(optax.clip_by_global_norm(1.0), scale_by_sonew(band=4), optax.scale(-1e-2))

    References:
      A Computationally Efficient Sparsified Online Newton Method, NeurIPS 2023, arXiv 2311.10085, algorithms 1 to 3.
    """
    options = SonewOptions(
        band=band,
        b1=b1,
        b2=b2,
        eps=eps,
        eps_mode=eps_mode,
        grafting=grafting,
        graft_eps=graft_eps,
        rank1=rank1,
        flatten=flatten,
        tolerance=tolerance,
        state=state,
    )

    def init(params: optax.Params) -> ScaleBySonewState:
        return ScaleBySonewState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(lambda leaf: options.empty(leaf)[0], params),
            bands=jax.tree.map(lambda leaf: options.empty(leaf)[1], params),
        )

    def update(
        updates: optax.Updates, state: ScaleBySonewState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleBySonewState]:
        del params
        count = optax.safe_increment(state.count)
        tree: Any
        leaves, tree = jax.tree.flatten(updates)
        moved = updated(
            options, count, state.count, leaves, tree.flatten_up_to(state.mu), tree.flatten_up_to(state.bands)
        )
        u, mu, bands = (tree.unflatten(column) for column in zip(*moved, strict=True)) if moved else (updates,) * 3
        return u, ScaleBySonewState(count=count, mu=mu, bands=bands)

    return optax.GradientTransformation(init, update)


@static("band", "graft_eps")
def sonew(
    learning_rate: optax.ScalarOrSchedule,
    *,
    band: int = 1,
    b1: float = 0.9,
    b2: float = 0.99,
    eps: float = 1e-6,
    eps_mode: str = "relative",
    grafting: str = "adam",
    graft_eps: float = 1e-8,
    rank1: str = "adam",
    flatten: str = "column",
    weight_decay: float = 0.0,
    tolerance: float | None = None,
    state: str = "float",
) -> optax.GradientTransformation:
    r"""The Sparsified Online Newton optimizer: `w <- w - lr_t (u_t + weight_decay * w)`, `u_t` of `scale_by_sonew`.

    Args:
      learning_rate: a float or an optax schedule. Coming from Adam, take Adam's: with the Adam graft each tensor's step
        is as long as Adam's would be. With `grafting="none"`, begin 300 times lower.
      band: off-diagonals of the preconditioner: 0 diagonal, 1 tridiagonal, b banded. Costs `O(n b^3)` arithmetic for
        `n` parameters; the state has `b + 2` numbers a parameter, where Adam's has 2.
      b1: decay of the momentum, in [0, 1).
      b2: decay of the statistics, in [0, 1).
      eps: damping of the statistics' diagonal.
      eps_mode: "relative" to the largest statistics of each tensor, or "absolute".
      grafting: whose step length the direction takes, tensor by tensor: "adam", "sgd", "momentum", "rmsprop" or "none".
      graft_eps: added to the square root in the adam and rmsprop grafts.
      rank1: the rule for biases and other tensors of rank 0 and 1: "adam" or "sonew".
      flatten: the order in which a matrix becomes a chain: "column" (inputs of one output are neighbours) or "row".
      weight_decay: decoupled weight decay, as a share of `learning_rate`; zero or positive.
      tolerance: Schur complements below this share of the diagonal lose their edges; None is the dtype's epsilon.
      state: "float", or "int8" for a state of 8 bits a number, for a band of 0 or 1.

    `b1`, `b2`, `eps`, `weight_decay` and the rate may be traced scalars, as `optax.inject_hyperparams` makes them; the
    others are static. `scale_by_sonew` has the equations.

    Raises:
      ValueError: an option is out of range.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> tx = sonew(0.1)
      >>> params = {"w": jnp.ones((3, 2))}
      >>> state = tx.init(params)
      >>> grads = jax.grad(lambda p: jnp.sum(p["w"] ** 2))(params)
      >>> updates, state = tx.update(grads, state, params)
      >>> params = optax.apply_updates(params, updates)

    References:
      A Computationally Efficient Sparsified Online Newton Method, NeurIPS 2023, arXiv 2311.10085.
    """
    if is_known(weight_decay) and not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay is {weight_decay!r}; give zero or a positive number")
    scale = scale_by_sonew(
        band=band,
        b1=b1,
        b2=b2,
        eps=eps,
        eps_mode=eps_mode,
        grafting=grafting,
        graft_eps=graft_eps,
        rank1=rank1,
        flatten=flatten,
        tolerance=tolerance,
        state=state,
    )
    # Whether a traced one is zero is not known, and the state must have the same parts as from `init`.
    decays = isinstance(weight_decay, jax.Array) or weight_decay
    decay = (optax.add_decayed_weights(weight_decay),) if decays else ()
    return optax.chain(scale, *decay, optax.scale_by_learning_rate(learning_rate))
