"""A step of SONew: each tensor's moments, its direction, and the length of its update."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from sonew_compiled.jax_settings import are_pinned, platform
from sonew_compiled.optimizer._average import unbias
from sonew_compiled.optimizer._chain import Chain
from sonew_compiled.optimizer._eight_bits import read_state, write_state
from sonew_compiled.optimizer._graft import graft, graft_direction, saturate
from sonew_compiled.optimizer._joined import Joined
from sonew_compiled.optimizer._logdet import apply, factorize
from sonew_compiled.optimizer._precision import statistics_epsilon
from sonew_compiled.optimizer._sonew_options import SonewOptions

_SMALLEST_DAMPING = 1e-16

# With as many bands or fewer, a tensor by itself is compiled as quickly and runs faster.
_APART = 2


def updated(
    options: SonewOptions, count: jax.Array, step: jax.Array, leaves: list[jax.Array], mu: list[Any], bands: list[Any]
) -> list[tuple[jax.Array, Any, tuple[Any, ...]]]:
    """The update, the new momentum and the new bands of each tensor."""
    # Tensors are joined only where JAX compiles for the processor. The passes rewrite the form of single tensors, and
    # the joined form was not measured elsewhere.
    apart = are_pinned() or platform() != "cpu"
    found: dict[int, tuple[jax.Array, Any, tuple[Any, ...]]] = {}
    waiting: dict[jnp.dtype, dict[int, _Moved]] = {}
    for leaf, (g, m, held) in enumerate(zip(leaves, mu, bands, strict=True)):
        options.check_bands(g, held)
        if g.size == 0:
            found[leaf] = g, m, held
            continue
        moved = _Moved.of(options, count, g, m, held)
        if moved.follows_adam or apart or len(held) <= _APART:
            u = None if moved.follows_adam else moved.direction()
            found[leaf] = moved.finish(u, leaf=leaf, step=step)
        else:
            waiting.setdefault(g.dtype, {})[leaf] = moved
    for dtype, group in waiting.items():
        tensors = list(group.values())
        joined = Joined([each.chain for each in tensors], [each.H for each in tensors], [each.m for each in tensors])
        gamma = statistics_epsilon(dtype) if options.gamma is None else options.gamma
        rows = joined.largest_rows()
        dampings = [each.damping(functools.partial(jnp.asarray, row)) for each, row in zip(tensors, rows, strict=True)]
        for (leaf, moved), u in zip(group.items(), joined.directions(dampings, gamma), strict=True):
            found[leaf] = moved.finish(u, leaf=leaf, step=step)
    return [found[leaf] for leaf in range(len(leaves))]


@dataclass(frozen=True, kw_only=True)
class _Moved:
    """The moments of one tensor after a step, in the layout of its chain, without bias correction.

    The correction of a whole tensor is one number, and `X(c H) = X(H) / c`. Grafting ignores the scale of `u`. So the
    entries of `m` and `H` are not corrected. Only lengths are, and numbers that are compared with the entries.

    Attributes:
      gradient: as it was given.
      g, m, H: limited gradient, momentum and bands, each of shape (rows, cols).
      of_m, of_h: the corrections of `m` and `H`, and `root` the root of the latter; scalars.
      graft_eps: what is added to square roots in grafts, for statistics without correction.
    """

    options: SonewOptions
    gradient: jax.Array
    chain: Chain
    g: jax.Array
    m: jax.Array
    H: list[jax.Array]
    of_m: jax.Array
    of_h: jax.Array
    root: jax.Array
    graft_eps: jax.Array

    @classmethod
    def of(cls, options: SonewOptions, count: jax.Array, g: jax.Array, m: Any, bands: tuple[Any, ...]) -> _Moved:
        """The moments after the gradient `g`, from those of the state; `count` is the step's, from 1 on."""
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
        of_m, of_h = unbias(options.b1, count, dtype), unbias(options.b2, count, dtype)
        root = jnp.sqrt(of_h)
        return cls(
            options=options,
            gradient=g,
            chain=chain,
            g=g2,
            m=m2,
            H=H,
            of_m=of_m,
            of_h=of_h,
            root=root,
            graft_eps=options.graft_eps / root,
        )

    @property
    def follows_adam(self) -> bool:
        return self.gradient.ndim <= 1 and self.options.rank1 == "adam"

    def direction(self) -> jax.Array:
        """`X m`, with damping."""
        damped = [self.H[0] + self.damping(lambda: _largest_row(self.chain, self.H)), *self.H[1:]]
        return apply(self.chain, factorize(self.chain, damped, tolerance=self.options.gamma, is_damped=True), self.m)

    def damping(self, largest_row: Callable[[], jax.Array]) -> jax.Array:
        """The damping of the diagonal, for statistics that are still to be multiplied by `of_h`; a scalar."""
        dtype, eps, unbias = self.g.dtype, self.options.eps, self.of_h
        if self.options.eps_mode == "absolute":
            return (eps / unbias).astype(dtype)
        return jnp.maximum(jnp.asarray(eps, dtype) * largest_row(), (_SMALLEST_DAMPING / unbias).astype(dtype))

    def finish(self, u: jax.Array | None, *, leaf: int, step: jax.Array) -> tuple[jax.Array, Any, tuple[Any, ...]]:
        """The update from the direction `X m`, None if it is Adam's; the momentum and the bands as they are stored."""
        options, shape, dtype = self.options, self.gradient.shape, self.gradient.dtype
        of_m, of_h, root, graft_eps = self.of_m, self.of_h, self.root, self.graft_eps
        if u is None:
            u = graft_direction("adam", self.g, self.m, self.H[0], graft_eps) * (of_m / root).astype(dtype)
        elif options.grafting == "none":
            u = u * (of_m / of_h).astype(dtype)
        else:
            onto = graft_direction(options.grafting, self.g, self.m, self.H[0], graft_eps)
            corrections = {"adam": of_m / root, "rmsprop": 1 / root, "momentum": of_m, "sgd": jnp.ones_like(of_m)}
            u = graft(u, onto, times=corrections[options.grafting])
        if options.state == "int8":
            return u.reshape(shape), *write_state(self.chain, shape, self.m, self.H, step=step, leaf=leaf)
        return u.reshape(shape), self.m.reshape(shape), tuple(h.reshape(shape) for h in self.H)


def _largest_row(chain: Chain, H: list[jax.Array]) -> jax.Array:
    """`max_i(H[i,i] + max_k |H[i,k]|)`, a scalar."""
    # The diagonal is not negative anyway. With `abs`, kernels know that and find the largest by comparing bits.
    diagonal, *edges = [jnp.abs(band) for band in H]
    around = [jnp.maximum(off, chain.shift(off, -d)) for d, off in enumerate(edges, start=1)]
    row = diagonal + functools.reduce(jnp.maximum, around) if around else diagonal
    return jnp.max(row)
