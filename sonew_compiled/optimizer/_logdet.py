"""The LogDet subproblem on a banded graph: `X = argmin -log det X + Tr(X H)`, `X` zero off the band.

`X = L D L^T` with `L` unit lower triangular. With `I_j = {j+1 .. min(j+b, n-1)}`,

    L[I_j, j] = -H[I_j, I_j]^-1 H[I_j, j]
    1 / D[j]  =  s_j  =  H[j, j] - H[I_j, j]^T H[I_j, I_j]^-1 H[I_j, j]        (Schur complement)

Source: "A Computationally Efficient Sparsified Online Newton Method" (NeurIPS 2023, arXiv 2311.10085), theorem 3.2
and algorithm 3. Every `j` is independent, so arithmetic that is unrolled over b and vectorised over n eliminates the b
by b systems. There is no LAPACK call, which only XLA could lower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sonew_compiled.optimizer._chain import Chain, Window
from sonew_compiled.optimizer._precision import statistics_epsilon

Bands = Sequence[jax.Array]


class Preconditioner(NamedTuple):
    """The factors of `X = L D L^T`.

    Attributes:
      L: the `b` subdiagonals of the unit lower triangular factor; `L[p - 1][j]` is the entry `(j + p, j)`, and zero if
        `j + p` is outside.
      D: the diagonal factor, positive, one entry a row.
    """

    L: tuple[jax.Array, ...]
    D: jax.Array


def preconditioner(H_bands: Bands | jax.Array, *, tolerance: float | None = None) -> Preconditioner:
    """The LogDet preconditioner `X = L D L^T` of banded statistics, with the edges of bad pivots removed.

    `P_G(X^-1) = P_G(H)`: the inverse of the computed `X` reproduces the band of `H` (on the edges that are kept).

    Args:
      H_bands: `b + 1` vectors of the same length `n` and float dtype, or an array of shape `(b + 1, n)`.
        `H_bands[d][j]` is `H[j + d, j]`; the last `d` entries of band `d` lie outside and are ignored. Damping and
        bias correction are the caller's.
      tolerance: `gamma`; an entry `j` is removed from the graph if `s_j <= gamma * H[j, j]` or `s_j` is undefined. The
        default is the machine epsilon of the dtype.

    Returns:
      A `Preconditioner` with `b` vectors `L` and one vector `D`, each of shape `(n,)`.

    Raises:
      ValueError: the bands differ in shape, or are not vectors.

    Example:
      >>> import jax.numpy as jnp
      >>> L, D = preconditioner([jnp.array([2.0, 2.0]), jnp.array([1.0, 0.0])])
      >>> L[0].tolist(), D.round(4).tolist()
      ([-0.5, 0.0], [0.6667..., 0.5])
    """
    bands = [jnp.asarray(band) for band in H_bands]
    if not bands or any(band.ndim != 1 or band.shape != bands[0].shape for band in bands):
        shapes = [band.shape for band in bands]
        raise ValueError(f"H_bands has shapes {shapes}; give b + 1 vectors of one length, band 0 the diagonal")
    n = bands[0].shape[0]
    chain = Chain(rows=n, cols=1)
    inside = [jnp.where(jnp.arange(n) < n - d, band, 0) for d, band in enumerate(bands)]
    factors = factorize(chain, [chain.view(band) for band in inside], tolerance=tolerance)
    # `-x` would make zeros negative.
    return Preconditioner(L=tuple(0 - x.reshape(-1) for x in factors.solution), D=factors.D.reshape(-1))


class Factors(NamedTuple):
    """The factors with which `X` is applied, in a chain's own (rows, cols) layout.

    Attributes:
      solution: `-L`: for `p` from 1 to `b`, entry `p` of `H[I_j, I_j]^-1 H[I_j, j]` for every `j`; zero at removed
        edges.
      D: the diagonal factor.
    """

    solution: tuple[jax.Array, ...]
    D: jax.Array


def factorize(
    chain: Chain | Window, bands: Bands, *, tolerance: jax.Array | float | None, is_damped: bool = False
) -> Factors:
    """`preconditioner` on bands in the chain's own layout, which are zero outside the chain.

    Args:
      chain: the chain; of a window, the factors lack entries at the end, two or three times its reach.
      bands: `H`.
      tolerance: `gamma`.
      is_damped: whether the diagonal is known to be positive or NaN.
    """
    gamma = statistics_epsilon(bands[0].dtype) if tolerance is None else tolerance
    diagonal, *off = bands
    if not off:
        return Factors(solution=(), D=1 / diagonal)
    solution, s, defined = _solve(chain, diagonal, off, is_damped=is_damped)
    removed = _removed_edges(chain, _bad(chain.fit(diagonal, s), s, defined, gamma), len(off))
    if len(off) == 1:  # the system of a kept edge has no other edge, so it need not be solved again
        return _factors(chain, solution, diagonal, s, removed[0])

    def solve_again() -> Factors:
        kept = [jnp.where(remove, 0, chain.fit(band, remove)) for remove, band in zip(removed, off, strict=True)]
        again, s_again, defined_again = _solve(chain, chain.fit(diagonal, kept[0]), kept, is_damped=is_damped)
        # The longest edge spans the whole system of an entry. If it stays, all edges stay, and the system is the same.
        # A compiler may then skip the second elimination, which few entries need.
        touched = chain.fit(removed[-1], s_again)
        mixed = [jnp.where(touched, new, chain.fit(old, new)) for new, old in zip(again, solution, strict=True)]
        s_mixed = jnp.where(touched, s_again, chain.fit(s, s_again))
        defined_mixed = jnp.where(touched, defined_again, True)
        # Conditioning on fewer entries only makes s larger, so this second guard only catches rounding.
        bare = _bad(chain.fit(diagonal, s_mixed), s_mixed, defined_mixed, gamma)
        return _factors(chain, mixed, diagonal, s_mixed, bare)

    if isinstance(chain, Chain):
        return solve_again()
    none = jnp.zeros_like(chain.shift(removed[-1], 0))
    found: Factors = jax.lax.cond(
        jnp.any(removed[-1]), solve_again, lambda: _factors(chain, solution, diagonal, s, none)
    )
    return found


def apply(chain: Chain | Window, factors: Factors, m: jax.Array) -> jax.Array:
    """`u = X m = L D L^T m`, all of shape (rows, cols), in `b` shifted sweeps up and `b` down.

    Of a window, `u` lacks `b` entries at either end of the factors, and `m` is at least as long as the factors.
    """
    y = chain.fit(m, factors.D)
    for p, x in enumerate(factors.solution, start=1):
        y = y - x * chain.fit(chain.shift(m, p), x)
    y = factors.D * y
    u = chain.behind(y, 0)
    for p, x in enumerate(factors.solution, start=1):
        u = u - chain.behind(x * y, p)
    return u


def _factors(
    chain: Chain | Window, solution: Sequence[jax.Array], diagonal: jax.Array, s: jax.Array, bare: jax.Array
) -> Factors:
    """The factors for the entries of `bare`, without edges where that is true."""
    kept = tuple(jnp.where(bare, 0, chain.fit(x, bare)) for x in solution)
    return Factors(solution=kept, D=1 / jnp.where(bare, chain.fit(diagonal, bare), chain.fit(s, bare)))


def _solve(
    chain: Chain | Window, diagonal: jax.Array, off: Bands, *, is_damped: bool
) -> tuple[list[jax.Array], jax.Array, jax.Array]:
    """For every `j` the solution of its system, the Schur complement `s`, and whether it is defined (pivots positive).

    Gaussian elimination of `{j} + I_j` goes from the far end to `j`. In this order the pivot of `j + p` is its Schur
    complement given fewer entries than those that `s_{j+p}` conditions on. So the pivot is at least `s_{j+p}`, and the
    elimination breaks down only if some entry's own `s` is bad too. Past the end of the chain the diagonal is one.
    """
    b = len(off)
    one = jnp.ones((), diagonal.dtype)
    # matrix[p][q] = H[j+p, j+q] for p >= q, each of shape (rows, cols) and indexed by j.
    matrix = [
        [chain.shift(off[p - q - 1], q) if p > q else chain.shift(diagonal, q, fill=1.0) for q in range(p + 1)]
        for p in range(b + 1)
    ]
    defined = jnp.ones(matrix[0][0].shape, bool)
    factors: list[list[jax.Array]] = [[] for _ in range(b + 1)]
    for k in range(b, 0, -1):
        pivot = matrix[k][k]
        # A bad pivot gives NaN, which is not used. The first pivot is an entry of the diagonal itself; `s` is NaN if
        # that entry is.
        if k < b or not is_damped:
            defined = defined & (pivot > 0)
        # One division serves all entries; a single entry is divided directly.
        inverse = one / pivot
        factors[k] = [matrix[k][q] * inverse if k > 1 else matrix[k][q] / pivot for q in range(k)]
        for p in range(k):
            for q in range(p + 1):
                matrix[p][q] = matrix[p][q] - factors[k][p] * matrix[k][q]
    # factors[k][q] is U[q, k] of A = U D U^T (unit upper); row 0 holds H[I_j, j]; x = A^-1 H[I_j, j] by substitution.
    solution: list[jax.Array] = []
    for k in range(1, b + 1):
        x = factors[k][0]
        for q in range(1, k):
            x = x - factors[k][q] * solution[q - 1]
        solution.append(x)
    return solution, matrix[0][0], defined


def _bad(diagonal: jax.Array, s: jax.Array, defined: jax.Array, gamma: jax.Array | float) -> jax.Array:
    """`K`: the entries whose `s` is undefined or at most `gamma * H[j, j]`; a NaN compares false and is bad."""
    return ~(defined & (s > jnp.asarray(gamma, s.dtype) * diagonal))


def _removed_edges(chain: Chain | Window, bad: jax.Array, b: int) -> list[jax.Array]:
    """For each offset `d`, whether the edge `(j, j + d)` touches or spans a bad entry: any of `bad[j .. j+d]`."""
    removed = []
    covered = chain.shift(bad, 0)
    for d in range(1, b + 1):
        covered = covered | chain.shift(bad, d, fill=False)
        removed.append(covered)
    return removed
