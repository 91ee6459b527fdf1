"""Optimizers that keep a matrix, against dense algebra in float64, and schedule-free AdamW against optax's."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from sonew_compiled import optimizer as optimizers
from sonew_compiled.backward import gradient_point
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.presets import optimizer_settings


def power(a: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(a)
    return (vectors * values**exponent) @ vectors.T


def gradients(shape: tuple[int, ...], count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) * (1 + np.arange(shape[-1])) for _ in range(count)]


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Shampoo's preconditioner of a block's entries, row by row."""
    return np.kron(left, right)


def square_of_sum(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """That of CASPR."""
    half = (np.kron(left, np.eye(len(right))) + np.kron(np.eye(len(left)), right)) / 2
    return half @ half


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("make", "preconditioner", "block_size"),
    [
        *((optimizers.shampoo, product, size) for size in (2, 3, 100)),
        *((optimizers.caspr, square_of_sum, size) for size in (3, 100)),
    ],
)
def test_shampoo_and_caspr_against_dense_roots(
    make: Callable[..., Any], preconditioner: Callable[..., np.ndarray], block_size: int
) -> None:
    b1, b2, eps, interval = 0.8, 0.9, 1e-4, 3
    tx = make(-1.0, b1=b1, b2=b2, eps=eps, precond_interval=interval, block_size=block_size)
    update = jax.jit(tx.update)
    state = tx.init({"w": jnp.zeros((2, 3, 4))})
    m, d = np.zeros((6, 4)), np.zeros((6, 4))
    corners = [
        (slice(i, i + block_size), slice(j, j + block_size))
        for i in range(0, 6, block_size)
        for j in range(0, 4, block_size)
    ]
    left = {i: np.zeros((m[c].shape[0],) * 2) for i, c in enumerate(corners)}
    right = {i: np.zeros((m[c].shape[1],) * 2) for i, c in enumerate(corners)}
    roots: dict[int, np.ndarray] = {}

    def root(a: np.ndarray) -> np.ndarray:
        return power(a + eps * np.linalg.norm(a) * np.eye(len(a)), -1 / 4)

    for t, g in enumerate(gradients((6, 4), 5)):
        p = np.zeros((6, 4))
        for i, corner in enumerate(corners):
            left[i] = b2 * left[i] + (1 - b2) * g[corner] @ g[corner].T
            right[i] = b2 * right[i] + (1 - b2) * g[corner].T @ g[corner]
            if t % interval == 0:
                roots[i] = preconditioner(root(left[i]), root(right[i]))
            p[corner] = (roots[i] @ g[corner].reshape(-1)).reshape(g[corner].shape)
        unit = g / np.linalg.norm(g)
        d = b2 * d + (1 - b2) * unit**2
        length = np.linalg.norm(unit / np.sqrt(d / (1 - b2 ** (t + 1))))
        m = b1 * m + (1 - b1) * p * length / np.linalg.norm(p)
        updates, state = update({"w": jnp.asarray(g.reshape(2, 3, 4))}, state)
        np.testing.assert_allclose(updates["w"].reshape(6, 4), m, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("float64")
def test_rmsprop_with_momentum_sums_its_steps() -> None:
    b1, b2, eps = 0.7, 0.9, 1e-3
    tx = optimizer_factory(optimizer_settings("rmsprop", b1=b1, b2=b2, eps=eps))(0.1)
    plain = optimizer_factory(optimizer_settings("rmsprop", b2=b2, eps=eps))(0.1)
    state, before = tx.init(jnp.zeros(4)), plain.init(jnp.zeros(4))
    assert len(jax.tree.leaves(state)) == len(jax.tree.leaves(before)) + 1
    v, m = np.zeros(4), np.zeros(4)
    for g in gradients((4,), 4):
        v = b2 * v + (1 - b2) * g**2
        step = 0.1 * g / np.sqrt(v + eps)
        m = b1 * m + step
        updates, state = tx.update(jnp.asarray(g), state)
        alone, before = plain.update(jnp.asarray(g), before)
        np.testing.assert_allclose(updates, -m, rtol=1e-9)
        np.testing.assert_allclose(alone, -step, rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_soap_against_dense_rotations() -> None:
    b1, b2, eps, interval = 0.8, 0.9, 1e-6, 2
    tx = optimizers.scale_by_soap(b1=b1, b2=b2, eps=eps, precond_interval=interval)
    update = jax.jit(tx.update)
    state = tx.init({"w": jnp.zeros((5, 3))})
    m, v, left, right = np.zeros((5, 3)), np.zeros((5, 3)), np.zeros((5, 5)), np.zeros((3, 3))
    q, r = np.eye(5), np.eye(3)

    def step(a: np.ndarray, basis: np.ndarray) -> np.ndarray:
        columns, triangle = np.linalg.qr(a / np.linalg.norm(a) @ basis + 8 * np.finfo(float).eps * basis)
        return columns * np.sign(np.diag(triangle))

    for t, g in enumerate(gradients((5, 3), 6)):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (q.T @ g @ r) ** 2
        left, right = b2 * left + (1 - b2) * g @ g.T, b2 * right + (1 - b2) * g.T @ g
        inside = (q.T @ m @ r) / (1 - b1 ** (t + 1)) / (np.sqrt(v / (1 - b2 ** (t + 1))) + eps)
        updates, state = update({"w": jnp.asarray(g)}, state)
        # Statistics of fewer gradients than rows have zero eigenvalues, whose vectors depend on rounding.
        np.testing.assert_allclose(updates["w"], q @ inside @ r.T, rtol=1e-4)
        if t % interval == 0:
            q, r = step(left, q), step(right, r)
            q, r = (q, r) if t else (np.asarray(state.bases["w"][0]), r)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("b2", [1.0, 0.8])
@pytest.mark.parametrize("shape", [(4,), (3, 2), (2, 2, 2), ()])
def test_rfdson_against_the_dense_matrix(shape: tuple[int, ...], b2: float) -> None:
    size, rank, eps = int(np.prod(shape)), 3, 0.5
    weight = 1 if b2 == 1 else 1 - b2
    tx = optimizers.scale_by_rfdson(rank=rank, b2=b2, eps=eps)
    state = tx.init(jnp.zeros(shape))
    full = np.zeros((size, size))
    shrunk = 0.0
    rng = np.random.default_rng(0)
    for t in range(8):
        g = rng.normal(size=shape)
        updates, state = tx.update(jnp.asarray(g), state)
        full = b2 * full + weight * np.outer(g, g)
        sketch = np.asarray(state.sketch).reshape(rank, size)
        alpha = float(state.alpha)
        wanted = np.linalg.solve((alpha + eps) * np.eye(size) + sketch.T @ sketch, g.reshape(-1))
        np.testing.assert_allclose(np.asarray(updates).reshape(-1), wanted, rtol=1e-8)
        # The loss of the sketch is between zero and the sum of the shrinkage, half of which is in alpha.
        shrunk = 2 * alpha
        lost = np.linalg.eigvalsh(full - sketch.T @ sketch)
        assert lost.min() > -1e-9
        assert lost.max() < shrunk + 1e-9
        if t < rank or size <= rank:
            np.testing.assert_allclose(sketch.T @ sketch, full, atol=1e-9)
    assert (shrunk > 0.1 * weight) == (size > rank)


@pytest.mark.usefixtures("float64")
def test_rfdson_takes_the_lengths_of_normalised_rmsprop() -> None:
    b1, b2, eps = 0.7, 0.9, 0.2
    tx = optimizers.rfdson(0.5, b1=b1, b2=b2, rank=6, eps=eps)
    state = tx.init({"w": jnp.zeros((3, 2))})
    full, d, m = np.zeros((6, 6)), np.zeros(6), np.zeros(6)
    for t, g in enumerate(gradients((6,), 5)):
        updates, state = tx.update({"w": jnp.asarray(g.reshape(3, 2))}, state)
        unit = g / np.linalg.norm(g)
        full, d = b2 * full + (1 - b2) * np.outer(unit, unit), b2 * d + (1 - b2) * unit**2
        u = np.linalg.solve(full + eps * np.eye(6), unit)
        m = b1 * m + (1 - b1) * u * np.linalg.norm(unit / np.sqrt(d / (1 - b2 ** (t + 1)))) / np.linalg.norm(u)
        np.testing.assert_allclose(np.ravel(updates["w"]), -0.5 * m, rtol=1e-5)


@pytest.mark.usefixtures("float64")
def test_ons_against_the_dense_matrix() -> None:
    tx = optimizers.scale_by_ons(eps=0.5)
    state = tx.init({"a": jnp.zeros((3, 2)), "b": jnp.zeros(2)})
    full = 0.5 * np.eye(8)
    for g in gradients((8,), 20):
        updates, state = tx.update({"a": jnp.asarray(g[:6].reshape(3, 2)), "b": jnp.asarray(g[6:])}, state)
        full += np.outer(g, g)
        got = np.concatenate([np.ravel(updates["a"]), updates["b"]])
        np.testing.assert_allclose(got, np.linalg.solve(full, g), rtol=1e-9)
        np.testing.assert_allclose(state.inverse, np.linalg.inv(full), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("interval", [1, 3])
def test_full_adagrad_against_the_dense_root(interval: int) -> None:
    tx = optimizers.scale_by_full_adagrad(eps=1e-4, precond_interval=interval)
    update = jax.jit(tx.update)
    state = tx.init({"a": jnp.zeros((2, 2)), "b": jnp.zeros(2)})
    full, root = np.zeros((6, 6)), np.eye(6)
    for t, g in enumerate(gradients((6,), 7)):
        updates, state = update({"a": jnp.asarray(g[:4].reshape(2, 2)), "b": jnp.asarray(g[4:])}, state)
        full += np.outer(g, g)
        if t % interval == 0:
            root = power(full + 1e-4 * np.linalg.norm(full) * np.eye(6), -1 / 2)
        got = np.concatenate([np.ravel(updates["a"]), updates["b"]])
        np.testing.assert_allclose(got, root @ g, rtol=1e-6)


@pytest.mark.parametrize("name", ["shampoo", "soap", "full-adagrad", "psgd-kron"])
def test_steps_between_refreshes_do_not_pay_for_one(name: str) -> None:
    tx = optimizer_factory(optimizer_settings(name, precond_interval=3))(0.1)
    params = {"w": jnp.zeros((4, 3))}
    traced = jax.make_jaxpr(tx.update)(params, tx.init(params), params)
    names = [equation.primitive.name for equation in traced.jaxpr.eqns]
    assert "cond" in names
    assert not {"while", "scan"} & set(names), "the iterations are inside the branch"

    field = {"shampoo": "roots", "soap": "bases", "full-adagrad": "root", "psgd-kron": "factors"}[name]
    update = jax.jit(tx.update)
    state, kept = tx.init(params), []
    for g in gradients((4, 3), 7):
        _, state = update({"w": jnp.asarray(g, jnp.float32)}, state, params)
        kept.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(getattr(state[0], field))]))
    changed = [not np.array_equal(a, b) for a, b in itertools.pairwise(kept)]
    assert changed == [False, False, True, False, False, True]


@pytest.mark.usefixtures("float64")
def test_schedule_free_makes_the_steps_of_optax() -> None:
    options = {"b1": 0.9, "b2": 0.99, "eps": 1e-6, "weight_decay": 0.01}
    rates = [0.0, 0.05, 0.1, 0.1, 0.05, 0.02]
    start = {"a": jnp.asarray(np.linspace(1, 3, 20).reshape(5, 4)), "c": jnp.ones(3)}

    def f(params: dict[str, jax.Array]) -> jax.Array:
        return jnp.sum(params["a"] ** 2) / 2 + jnp.sum(jnp.cosh(params["c"]))

    x, state = start, optimizers.schedule_free_adamw(0.1, **options).init(start)
    y, reference = start, optax.contrib.schedule_free_adamw(0.1, **options).init(start)
    for rate in rates:
        tx = optimizers.schedule_free_adamw(rate, **options)
        updates, state = tx.update(jax.grad(f)(gradient_point(tx, x, state)), state, x)
        x = optax.apply_updates(x, updates)
        theirs = optax.contrib.schedule_free_adamw(rate, **options)
        updates, reference = theirs.update(jax.grad(f)(y), reference, y)
        y = optax.apply_updates(y, updates)
        for ours, wanted in (
            (x, optax.contrib.schedule_free_eval_params(reference, y)),
            (gradient_point(tx, x, state), y),
        ):
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), ours, wanted)
