"""SONew's mathematics, against dense float64 linear algebra and a literal implementation of the algorithm."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sonew_compiled
import sonew_compiled.optimizer as optimizers
from sonew_compiled.optimizer._chain import Chain
from sonew_compiled.optimizer._graft import graft, normalised
from sonew_compiled.optimizer._logdet import factorize

SLOW = settings(max_examples=25, deadline=None, derandomize=True)
BANDS = (0, 1, 2, 4, 10)
SIZES = st.sampled_from([1, 3, 17])  # few, so that a compiled problem serves many examples

preconditioner = jax.jit(sonew_compiled.preconditioner, static_argnames="tolerance")

pytestmark = pytest.mark.usefixtures("float64")


def bands_of(h: np.ndarray, band: int) -> np.ndarray:
    n = len(h)
    bands = np.zeros((band + 1, n))
    for d in range(min(band, n - 1) + 1):
        bands[d, : n - d] = np.diagonal(h, -d)
    return bands


def dense_factors(factors: sonew_compiled.Preconditioner) -> tuple[np.ndarray, np.ndarray]:
    n = factors.D.shape[0]
    ell = np.eye(n)
    for p, column in enumerate(factors.L, start=1):
        for j in range(n - p):
            ell[j + p, j] = column[j]
        np.testing.assert_array_equal(np.asarray(column)[max(n - p, 0) :], 0)
    return ell, np.asarray(factors.D, np.float64)


def dense(factors: sonew_compiled.Preconditioner) -> np.ndarray:
    ell, d = dense_factors(factors)
    return ell @ np.diag(d) @ ell.T


def random_statistics(n: int, seed: int, samples: int | None = None) -> np.ndarray:
    g = np.random.default_rng(seed).normal(size=(n, samples or 2 * n + 2))
    return g @ g.T / g.shape[1]


def schur_complements(h: np.ndarray, band: int, graph: np.ndarray) -> np.ndarray:
    """`s_j` on a graph by dense solves; NaN if the system is singular or indefinite."""
    n = len(h)
    s = np.full(n, np.nan)
    for j in range(n):
        near = list(range(j + 1, min(j + band, n - 1) + 1))
        block = np.where(graph, h, 0)[np.ix_([j, *near], [j, *near])]
        if near and np.linalg.eigvalsh(block[1:, 1:])[0] <= 0:
            continue
        s[j] = block[0, 0] - (block[0, 1:] @ np.linalg.solve(block[1:, 1:], block[1:, 0]) if near else 0)
    return s


def reference_graph(h: np.ndarray, band: int, gamma: float) -> np.ndarray:
    """The edges that the algorithm keeps, by its three steps."""
    n = len(h)
    i, j = np.indices((n, n))
    graph = abs(i - j) <= band
    s = schur_complements(h, band, graph)
    bad = {k for k in range(n) if np.isnan(s[k]) or s[k] <= gamma * h[k, k]}
    for a in range(n):
        for b in range(a + 1, min(a + band, n - 1) + 1):
            if any(k in bad for k in range(a, b + 1)):
                graph[a, b] = graph[b, a] = False
    return graph


@SLOW
@given(n=SIZES, band=st.sampled_from(BANDS), seed=st.integers(0, 2**32 - 1))
def test_inverse_of_x_reproduces_the_band_of_h(n: int, band: int, seed: int) -> None:
    h = random_statistics(n, seed) + 0.01 * np.eye(n)
    inverse = np.linalg.inv(dense(preconditioner(bands_of(h, band))))
    i, j = np.indices((n, n))
    inside = abs(i - j) <= band
    np.testing.assert_allclose(inverse[inside], h[inside], rtol=1e-9, atol=1e-9)


@SLOW
@given(n=st.sampled_from([1, 3, 11]), extra=st.integers(0, 1), seed=st.integers(0, 2**32 - 1))
def test_full_band_is_the_dense_inverse(n: int, extra: int, seed: int) -> None:
    h = random_statistics(n, seed) + 0.01 * np.eye(n)
    x = dense(preconditioner(bands_of(h, n - 1 + extra)))
    np.testing.assert_allclose(x, np.linalg.inv(h), rtol=1e-9, atol=1e-9 * np.abs(x).max())


@SLOW
@given(
    n=SIZES,
    band=st.sampled_from([1, 2, 3, 4]),
    seed=st.integers(0, 2**32 - 1),
    broken=st.lists(st.integers(0, 22), max_size=4),
)
def test_removed_edges_are_those_of_the_algorithm(n: int, band: int, seed: int, broken: list[int]) -> None:
    """Some entries repeat or contradict their neighbour, so that their pivots are zero or negative."""
    h = random_statistics(n, seed) + 0.05 * np.eye(n)
    for k in broken:
        if k + 1 < n:
            h[k, k + 1] = h[k + 1, k] = (1.0 if k % 2 else 1.3) * np.sqrt(h[k, k] * h[k + 1, k + 1])
    gamma = 1e-6
    graph = reference_graph(h, band, gamma)
    factors = preconditioner(bands_of(h, band), tolerance=gamma)
    ell, d = dense_factors(factors)
    kept = np.tril(graph, -1)
    assert not ell[np.tril(~graph, -1)].any()
    # The result is the LogDet solution of the reduced graph, so its inverse equals H on every edge that was kept.
    np.testing.assert_allclose(np.linalg.inv(dense(factors))[kept], h[kept], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(1 / d, schur_complements(h, band, graph), rtol=1e-7)
    assert (1 / d >= gamma * np.diag(h)).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("rank", [1, 2, "full"])
def test_x_is_positive_definite_in_low_precision(dtype: str, band: int, rank: int | str) -> None:
    n = 40
    h = random_statistics(n, seed=band, samples=3 * n if rank == "full" else int(rank))
    factors = preconditioner(jnp.asarray(bands_of(h, band), dtype))
    assert factors.D.dtype == dtype
    ell, d = dense_factors(factors)
    assert np.isfinite(ell).all()
    assert np.isfinite(d).all()
    assert (d > 0).all()


def test_bands_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\), \(2,\).*one length"):
        sonew_compiled.preconditioner([jnp.ones(3), jnp.ones(2)])


def test_what_lies_outside_the_matrix_is_ignored() -> None:
    h = random_statistics(6, seed=1)
    bands = bands_of(h, 2)
    clean = preconditioner(bands)
    bands[1, -1:] = bands[2, -2:] = np.nan
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(preconditioner(bands)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(7,), (1, 5), (3, 4), (2, 6), (2, 3, 4)])
@pytest.mark.parametrize("flatten", ["column", "row"])
@pytest.mark.parametrize("k", [-30, -7, -3, -1, 0, 1, 2, 5, 30])
def test_chain_shifts_the_flattened_tensor(shape: tuple[int, ...], flatten: str, k: int) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    chain = Chain.of(shape, flatten)

    def flat(y: np.ndarray) -> np.ndarray:
        return np.asarray(y).T.reshape(-1)

    line = flat(chain.view(x))
    if len(shape) == 2 and flatten == "column":
        np.testing.assert_array_equal(line, x.T.reshape(-1))
    index = np.arange(x.size) + k
    inside = (index >= 0) & (index < x.size)
    expected = np.where(inside, line[np.clip(index, 0, x.size - 1)], 9.0)
    np.testing.assert_array_equal(flat(chain.shift(chain.view(jnp.asarray(x)), k, fill=9.0)), expected)


def reference_update(g: list[np.ndarray], *, band: int, b1: float, b2: float, eps: float, grafting: str) -> np.ndarray:
    """The last of several updates of one matrix, in dense float64 linear algebra."""
    n = g[0].size
    m, h = np.zeros(n), np.zeros((n, n))
    i, j = np.indices((n, n))
    for grad in g:
        v = grad.T.reshape(-1)
        m = b1 * m + (1 - b1) * v
        h = b2 * h + (1 - b2) * np.where(abs(i - j) <= band, np.outer(v, v), 0)
    m, h = m / (1 - b1 ** len(g)), h / (1 - b2 ** len(g))
    off = np.abs(np.where(i == j, 0, h)).max(axis=1)
    damped = h + max(eps * (np.diag(h) + off).max(), 1e-16) * np.eye(n)
    u = dense(preconditioner(bands_of(damped, band))) @ m
    adam = m / (np.sqrt(np.diag(h)) + 1e-8)
    onto = {"adam": adam, "rmsprop": v / (np.sqrt(np.diag(h)) + 1e-8), "momentum": m, "sgd": v}.get(grafting)
    scale = 1 if onto is None else np.linalg.norm(onto) / np.linalg.norm(u)
    return (scale * u).reshape(g[0].shape[::-1]).T


@pytest.mark.parametrize("band", [0, 1, 3])
@pytest.mark.parametrize("grafting", ["adam", "sgd", "momentum", "rmsprop", "none"])
def test_updates_follow_the_equations(band: int, grafting: str) -> None:
    rng = np.random.default_rng(band)
    grads = [rng.normal(size=(4, 3)) for _ in range(5)]
    tx = sonew_compiled.scale_by_sonew(band=band, b1=0.8, b2=0.9, eps=1e-3, grafting=grafting)
    state = tx.init({"w": jnp.zeros((4, 3))})
    for g in grads:
        updates, state = tx.update({"w": jnp.asarray(g)}, state)
    expected = reference_update(grads, band=band, b1=0.8, b2=0.9, eps=1e-3, grafting=grafting)
    np.testing.assert_allclose(updates["w"], expected, rtol=1e-9)


HARD_GRADIENTS = {
    "zero": lambda rng, shape: np.zeros(shape),
    "constant": lambda rng, shape: np.full(shape, 0.37),
    "huge": lambda rng, shape: 1e30 * rng.normal(size=shape),
    "tiny": lambda rng, shape: 1e-30 * rng.normal(size=shape),
    "mixed": lambda rng, shape: np.exp(rng.uniform(-69, 69, size=shape)) * rng.choice([-1, 1], size=shape),
    "sparse": lambda rng, shape: rng.normal(size=shape) * (rng.random(shape) < 0.1),
}


HARD_BANDS = (0, 1, 4)


@functools.cache
def hard_update(dtype: str, grafting: str):
    """Parameters, state and jitted update of a transformation for each band, in one compilation."""
    params = {"w": jnp.zeros((6, 5), dtype), "b": jnp.zeros(5, dtype), "s": jnp.zeros((), dtype)}
    txs = [sonew_compiled.scale_by_sonew(band=band, grafting=grafting, rank1="sonew") for band in HARD_BANDS]

    @jax.jit
    def update(grads, states):
        return list(zip(*(tx.update(grads, state) for tx, state in zip(txs, states, strict=True)), strict=True))

    return params, [tx.init(params) for tx in txs], update


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", HARD_GRADIENTS)
@pytest.mark.parametrize("grafting", ["adam", "sgd", "none"])
def test_hard_gradients_leave_everything_finite(dtype: str, kind: str, grafting: str) -> None:
    rng = np.random.default_rng(0)
    params, states, update = hard_update(dtype, grafting)
    # A repeated gradient makes the statistics singular. Then it vanishes, and the momentum stays.
    grads = jax.tree.map(lambda p: jnp.asarray(HARD_GRADIENTS[kind](rng, p.shape), dtype), params)
    for step in range(6):
        updates, states = update(grads if step < 4 else jax.tree.map(jnp.zeros_like, grads), states)
        for leaf in jax.tree.leaves((updates, states)):
            assert np.isfinite(np.asarray(leaf, np.float64)).all(), (kind, step)
    chain = Chain.of((6, 5), "column")
    for state in states:
        h = [chain.view(band) + (1e-16 if d == 0 else 0) for d, band in enumerate(state.bands["w"])]
        assert (np.asarray(factorize(chain, h, tolerance=None).D, np.float64) > 0).all()


@pytest.mark.parametrize("band", [1, 2, 4])
@pytest.mark.parametrize("size", [0.3, 3.0])
def test_of_a_positive_diagonal_no_entry_is_checked(band: int, size: float) -> None:
    """Edges of this size make few or most pivots bad; one entry is NaN."""
    rng = np.random.default_rng(0)
    chain = Chain(rows=8, cols=5)
    bands = [rng.uniform(0.5, 1.0, (8, 5)), *size * rng.normal(size=(band, 8, 5))]
    bands[0][3, 2] = np.nan
    h = [jnp.asarray(each, jnp.float32) for each in bands]
    checked, taken = (factorize(chain, h, tolerance=None, is_damped=each) for each in (False, True))
    for one, other in zip(jax.tree.leaves(checked), jax.tree.leaves(taken), strict=True):
        np.testing.assert_array_equal(one, other)


def test_saturation_touches_no_ordinary_number() -> None:
    g = np.random.default_rng(0).normal(size=(50, 40)) * 1e12
    tx = sonew_compiled.scale_by_sonew(grafting="sgd")
    updates, _ = tx.update(jnp.asarray(g, jnp.float32), tx.init(jnp.zeros((50, 40), jnp.float32)))
    np.testing.assert_allclose(np.linalg.norm(np.asarray(updates, np.float64)), np.linalg.norm(g), rtol=1e-5)


@pytest.mark.parametrize("band", [0, 1, 4])
def test_grafted_step_has_adams_length(band: int) -> None:
    g = jnp.asarray(np.random.default_rng(0).normal(size=(9, 7)))
    tx, adam = sonew_compiled.scale_by_sonew(band=band, b1=0.9, b2=0.99), optax.scale_by_adam(b1=0.9, b2=0.99)
    ours, _ = tx.update({"w": g}, tx.init({"w": g}))
    theirs, _ = adam.update({"w": g}, adam.init({"w": g}))
    np.testing.assert_allclose(jnp.linalg.norm(ours["w"]), jnp.linalg.norm(theirs["w"]), rtol=1e-6)


def test_lengths_that_underflow_are_not_divided_by() -> None:
    tiny = jnp.full(1000, 1e-24, jnp.float32)
    assert jnp.linalg.norm(1e10 * normalised(tiny)) <= 1e10
    assert jnp.max(jnp.abs(graft(tiny, jnp.full(1000, 1.0)))) <= 1
    assert jnp.all(graft(tiny.astype(jnp.bfloat16), jnp.full(1000, 1e15, jnp.bfloat16)) < jnp.inf)
    unit = normalised(jnp.asarray([3e-10, 4e-10]))
    np.testing.assert_allclose(unit, [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("size", [1e-17, 1e-18, 1e-19, 3e-20, 1e-21, 1e-30])
def test_a_length_is_never_more_than_is_asked(size: float) -> None:
    """Of a large tensor the squares vanish one by one, long before the length of all is as small."""
    u = np.full((1000, 1000), size, np.float32)
    for found in (graft(jnp.asarray(u), jnp.ones((1000, 1000))) / 1000, normalised(jnp.asarray(u))):
        length = np.linalg.norm(np.asarray(found, np.float64))
        assert length <= 1.001
        assert length > 0.99 or size < 1e-18


@pytest.mark.parametrize("band", [0, 1, 4])
@pytest.mark.parametrize("grafting", ["adam", "none"])
def test_an_infinite_gradient_shows(band: int, grafting: str) -> None:
    """As a large finite one it would stop the tensor for hundreds of steps, and nobody would know."""
    tx = sonew_compiled.scale_by_sonew(band=band, grafting=grafting)
    g = jnp.ones((6, 5)).at[2, 3].set(jnp.inf)
    updates, _ = tx.update(g, tx.init(g))
    assert not jnp.all(jnp.isfinite(updates))


@pytest.mark.parametrize("name", ["sonew", "shampoo", "rfdson", "adam_8bit"])
def test_parameters_of_float16_are_refused(name: str) -> None:
    """Ordinary gradients were clipped, so that their squares had a sum in float16."""
    params = jnp.ones((300, 300), jnp.float16)
    tx = getattr(optimizers, name)(0.1, **({"b1": 0.9, "b2": 0.9, "eps": 1e-6} if name == "adam_8bit" else {}))
    with pytest.raises(ValueError, match="keep the parameters in float32 and give --precision f16-mixed"):
        tx.update(params, tx.init(params), params)


def test_vectors_follow_adam_unless_asked() -> None:
    g = jnp.asarray(np.random.default_rng(0).normal(size=12))
    adam = optax.scale_by_adam(b1=0.9, b2=0.99)
    theirs, _ = adam.update(g, adam.init(g))
    ours = {}
    for rank1 in ("adam", "sonew"):
        tx = sonew_compiled.scale_by_sonew(rank1=rank1)
        ours[rank1], state = tx.update(g, tx.init(g))
        assert len(state.bands) == (1 if rank1 == "adam" else 2)
    np.testing.assert_allclose(ours["adam"], theirs, rtol=1e-6)
    assert not np.allclose(ours["sonew"], theirs, rtol=1e-2)


def test_absolute_damping_is_added_as_it_is() -> None:
    g = jnp.asarray([[3.0], [4.0]])
    tx = sonew_compiled.scale_by_sonew(band=0, eps=2.0, eps_mode="absolute", grafting="none")
    updates, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(updates, g / (g**2 + 2.0))


@pytest.mark.parametrize("learning_rate", [0.05, optax.linear_schedule(0.1, 0.0, 300)])
def test_sonew_minimises_in_any_pytree_under_jit_and_chain(learning_rate: optax.ScalarOrSchedule) -> None:
    target = (jnp.arange(12.0).reshape(3, 4) / 12, [{"b": jnp.ones(3)}, jnp.asarray(2.0)], jnp.zeros((0, 2)))
    params = jax.tree.map(jnp.zeros_like, target)
    tx = optax.chain(optax.clip_by_global_norm(10.0), sonew_compiled.sonew(learning_rate, band=2, weight_decay=1e-6))
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        def loss(p):
            return sum(jnp.sum((a - b) ** 2) for a, b in zip(jax.tree.leaves(p), jax.tree.leaves(target), strict=True))

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for _ in range(300):
        params, state, value = step(params, state)
        losses.append(float(value))
    assert losses[-1] < 1e-3 * losses[0]


def test_weight_decay_is_decoupled() -> None:
    w = jnp.asarray([[1.0, -2.0]])
    tx = sonew_compiled.sonew(0.1, weight_decay=0.5)
    updates, _ = tx.update(jnp.zeros_like(w), tx.init(w), w)
    np.testing.assert_allclose(updates, -0.1 * 0.5 * w)


@pytest.mark.parametrize(
    ("option", "value", "accepted"),
    [
        ("band", -1, "whole number from 0"),
        ("band", 1.5, "whole number from 0"),
        ("b1", 1.0, r"\[0, 1\)"),
        ("b2", float("nan"), r"\[0, 1\)"),
        ("eps", 0.0, "positive number"),
        ("eps_mode", "none", "relative, absolute"),
        ("grafting", "adamw", "adam, sgd, momentum, rmsprop, none"),
        ("rank1", "row", "adam, sonew"),
        ("flatten", "both", "column, row"),
        ("tolerance", 2.0, "epsilon"),
        ("weight_decay", -0.1, "zero or a positive"),
    ],
)
def test_options_out_of_range_say_what_is_accepted(option: str, value: object, accepted: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is .*{accepted}"):
        sonew_compiled.sonew(0.1, **{option: value})
