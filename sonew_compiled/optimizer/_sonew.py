"""Sparsified Online Newton as an optax transformation."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.optimizer._average import unbias
from sonew_compiled.optimizer._chain import Chain
from sonew_compiled.optimizer._eight_bits import GAMMA, empty_state, read_state, write_state
from sonew_compiled.optimizer._graft import GRAFTS, graft, graft_direction, saturate
from sonew_compiled.optimizer._logdet import apply, factorize
from sonew_compiled.optimizer._static import static

_SMALLEST_DAMPING = 1e-16


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


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The checked options of `scale_by_sonew`, under the names of its arguments.

    A number may be a traced scalar, as under `optax.inject_hyperparams`. Only known numbers are checked.
    """

    band: int | jax.Array
    b1: float
    b2: float
    eps: float
    eps_mode: str
    grafting: str
    graft_eps: float
    rank1: str
    flatten: str
    tolerance: float | None
    state: str

    def __post_init__(self) -> None:
        _accept("eps_mode", self.eps_mode, ("relative", "absolute"))
        _accept("grafting", self.grafting, GRAFTS)
        _accept("rank1", self.rank1, ("adam", "sonew"))
        _accept("flatten", self.flatten, ("column", "row"))
        _accept("state", self.state, ("float", "int8"))
        if _is_known(self.band) and not _is_whole(self.band):
            raise ValueError(f"band is {self.band!r}; give a whole number from 0 (diagonal) on, 1 is tridiagonal")
        if self.state == "int8" and _is_known(self.band) and self.band > 1:
            raise ValueError(
                f"band is {self.band} and state is 'int8', but rounded correlations of three neighbours need not be "
                "those of any statistics; give band 0 or 1, or state 'float'"
            )
        for name in ("b1", "b2"):
            if _is_known(value := getattr(self, name)) and not 0 <= value < 1:
                raise ValueError(f"{name} is {value!r}; give a decay in [0, 1), such as 0.9")
        for name in ("eps", "graft_eps"):
            if _is_known(value := getattr(self, name)) and not (0 < value < math.inf):
                raise ValueError(f"{name} is {value!r}; give a positive number, such as 1e-6")
        if self.tolerance is not None and _is_known(self.tolerance) and not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance is {self.tolerance!r}; give None (the dtype's epsilon) or a number in [0, 1)")

    def bands_of(self, leaf: jax.Array) -> int:
        """The number of off-diagonals that are kept for `leaf`."""
        if leaf.ndim <= 1 and self.rank1 == "adam":
            return 0
        if not _is_known(self.band):
            raise ValueError("band is traced, and the shapes of the state depend on it; call init outside of jax.jit")
        return int(self.band)

    @property
    def gamma(self) -> float | None:
        """The tolerance of edge removal; None leaves it to the dtype of the statistics."""
        return GAMMA if self.tolerance is None and self.state == "int8" else self.tolerance

    def empty(self, leaf: jax.Array) -> tuple[Any, tuple[Any, ...]]:
        """The momentum and the bands of a leaf before the first step."""
        count = self.bands_of(leaf)
        if self.state == "int8":
            return empty_state(leaf, count)
        return jnp.zeros_like(leaf), tuple(jnp.zeros_like(leaf) for _ in range(count + 1))

    def check_bands(self, leaf: jax.Array, bands: tuple[Any, ...]) -> None:
        """Refuses a state of another band. A traced band is not known, and the state's own is used."""
        if _is_known(self.band) and len(bands) - 1 != self.bands_of(leaf):
            raise ValueError(f"band is {self.band} and the state has {len(bands) - 1}; make a new state by init")


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
    options = _Options(
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
        moved = [
            _update_leaf(options, count, g, m, bands, leaf=leaf, step=state.count)
            for leaf, (g, m, bands) in enumerate(
                zip(leaves, tree.flatten_up_to(state.mu), tree.flatten_up_to(state.bands), strict=True)
            )
        ]
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
    if _is_known(weight_decay) and not 0 <= weight_decay < math.inf:
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


def _update_leaf(
    options: _Options, count: jax.Array, g: jax.Array, m: Any, bands: tuple[Any, ...], *, leaf: int, step: jax.Array
) -> tuple[jax.Array, Any, tuple[Any, ...]]:
    """The direction, the new momentum and the new bands of one tensor."""
    options.check_bands(g, bands)
    if g.size == 0:
        return g, m, bands
    dtype = g.dtype
    b1, b2 = (each.astype(dtype) if isinstance(each, jax.Array) else each for each in (options.b1, options.b2))
    chain = Chain.of(g.shape, options.flatten)
    g2 = saturate(chain.view(g))
    if options.state == "int8":
        m2, before = read_state(chain, g.shape, m, bands)
    else:
        m2, before = chain.view(m), [chain.view(h) for h in bands]
    m2 = b1 * m2 + (1 - b1) * g2
    gained = (1 - b2) * g2
    H = [b2 * h + gained * chain.shift(g2, d) for d, h in enumerate(before)]
    # The bias correction of a whole tensor is one number, and `X(c H) = X(H) / c`. Grafting ignores the scale of `u`.
    # So the entries of `m` and `H` are not corrected. Only lengths are, and numbers that are compared with the entries.
    of_m, of_H = unbias(options.b1, count, dtype), unbias(options.b2, count, dtype)
    root = jnp.sqrt(of_H)
    graft_eps = options.graft_eps / root
    if g.ndim <= 1 and options.rank1 == "adam":
        u = graft_direction("adam", g2, m2, H[0], graft_eps) * (of_m / root).astype(dtype)
    else:
        damped = [H[0] + _damping(options, chain, H, of_H), *H[1:]]
        u = apply(chain, factorize(chain, damped, tolerance=options.gamma, is_damped=True), m2)
        if options.grafting == "none":
            u = u * (of_m / of_H).astype(dtype)
        else:
            onto = graft_direction(options.grafting, g2, m2, H[0], graft_eps)
            corrections = {"adam": of_m / root, "rmsprop": 1 / root, "momentum": of_m, "sgd": jnp.ones_like(of_m)}
            u = graft(u, onto, times=corrections[options.grafting])
    if options.state == "int8":
        return u.reshape(g.shape), *write_state(chain, g.shape, m2, H, step=step, leaf=leaf)
    return u.reshape(g.shape), m2.reshape(g.shape), tuple(h.reshape(g.shape) for h in H)


def _damping(options: _Options, chain: Chain, H: list[jax.Array], unbias: jax.Array) -> jax.Array:
    """The damping of the diagonal, for statistics that are still to be multiplied by `unbias`."""
    dtype = H[0].dtype
    if options.eps_mode == "absolute":
        return (options.eps / unbias).astype(dtype)
    # The diagonal is not negative anyway. With `abs`, kernels know that and find the largest by comparing bits.
    diagonal, *edges = [jnp.abs(band) for band in H]
    around = [jnp.maximum(off, chain.shift(off, -d)) for d, off in enumerate(edges, start=1)]
    row = diagonal + functools.reduce(jnp.maximum, around) if around else diagonal
    return jnp.maximum(jnp.asarray(options.eps, dtype) * jnp.max(row), (_SMALLEST_DAMPING / unbias).astype(dtype))


def _is_known(value: Any) -> bool:
    return not isinstance(value, jax.core.Tracer)


def _is_whole(band: Any) -> bool:
    if isinstance(band, jax.Array):
        return band.ndim == 0 and jnp.issubdtype(band.dtype, jnp.integer) and bool(band >= 0)
    return isinstance(band, int) and not isinstance(band, bool) and band >= 0


def _accept(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} is {value!r}; give one of {', '.join(accepted)}")
