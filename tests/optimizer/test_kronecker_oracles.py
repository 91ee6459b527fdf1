"""KL-Shampoo, NorMuon and PSGD-Kron against their equations in NumPy and float64, and against what they converge to."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew_compiled import optimizer as optimizers

pytestmark = pytest.mark.usefixtures("float64")


def gradients(shape: tuple[int, ...], count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) * (1 + np.arange(shape[-1])) for _ in range(count)]


class Adam:
    """Adam's steps for one tensor."""

    def __init__(self, b1: float, b2: float, eps: float) -> None:
        self.m = self.v = np.zeros(())
        self.t, self.decays, self.eps = 0, (b1, b2), eps

    def __call__(self, g: np.ndarray) -> np.ndarray:
        b1, b2 = self.decays
        self.t, self.m, self.v = self.t + 1, b1 * self.m + (1 - b1) * g, b2 * self.v + (1 - b2) * g**2
        step: np.ndarray = self.m / (1 - b1**self.t) / (np.sqrt(self.v / (1 - b2**self.t)) + self.eps)
        return step


def test_kl_shampoo_against_its_equations() -> None:
    b1, b2, eps, interval = 0.8, 0.9, 1e-3, 2
    tx = optimizers.kl_shampoo(-1.0, b1=b1, b2=b2, eps=eps, precond_interval=interval)
    update, state = jax.jit(tx.update), tx.init({"w": jnp.zeros((2, 2, 3)), "b": jnp.zeros(3)})
    m, adam = np.zeros((4, 3)), Adam(b1, b2, 1e-8)

    def damped(values: np.ndarray) -> np.ndarray:
        return values + eps * values.mean()

    def turned(factor: np.ndarray, basis: np.ndarray) -> np.ndarray:
        columns, triangle = np.linalg.qr(factor @ basis)
        return columns * np.sign(np.diag(triangle))

    for step, g in enumerate(gradients((4, 3), 6)):
        if step == 0:
            r = np.sqrt(np.mean(g**2))
            s, t, a, b = r * np.eye(4), r * np.eye(3), np.full(4, r), np.full(3, r)
            left, right = np.eye(4), np.eye(3)
        over_a, over_b = (np.diag(1 / damped(values)) for values in (a, b))
        h = left.T @ g @ right
        s = b2 * s + (1 - b2) * g @ right @ over_b @ right.T @ g.T / 3
        t = b2 * t + (1 - b2) * g.T @ left @ over_a @ left.T @ g / 4
        a, b = (
            b2 * a + (1 - b2) * np.diag(h @ over_b @ h.T) / 3,
            b2 * b + (1 - b2) * np.diag(h.T @ over_a @ h) / 4,
        )
        m = b1 * m + (1 - b1) * g
        roots = [q @ np.diag(damped(v) ** -0.5) @ q.T for q, v in ((left, a), (right, b))]
        updates, state = update({"w": jnp.asarray(g.reshape(2, 2, 3)), "b": jnp.asarray(g[0])}, state)
        wanted = roots[0] @ m @ roots[1] / (1 - b1 ** (step + 1))
        np.testing.assert_allclose(np.asarray(updates["w"]).reshape(4, 3), wanted, rtol=1e-6)
        np.testing.assert_allclose(updates["b"], adam(g[0]), rtol=1e-6)
        if step % interval == 0:
            left, right = turned(s, left), turned(t, right)
            a, b = np.diag(left.T @ s @ left), np.diag(right.T @ t @ right)


def mixed(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients whose entries have a Kronecker product for a covariance, and its factors."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 3)) + 2 * np.eye(3), rng.normal(size=(2, 2)) + np.eye(2)
    return np.stack([a @ rng.normal(size=(3, 2)) @ b for _ in range(count)]), a @ a.T, b.T @ b


def last_state(tx: optax.GradientTransformation, gradients: np.ndarray) -> Any:
    def step(state: Any, g: jax.Array) -> tuple[Any, None]:
        return tx.update(g, state)[1], None

    return jax.jit(lambda gs: jax.lax.scan(step, tx.init(gs[0]), gs)[0])(jnp.asarray(gradients))


def test_kl_shampoo_finds_a_kronecker_covariance() -> None:
    seen, rows, columns = mixed(2000)
    state = last_state(optimizers.scale_by_kl_shampoo(b2=0.995, precond_interval=4), seen)
    wanted = np.kron(rows, columns)
    found = np.kron(*state.factors)
    assert np.linalg.norm(found - wanted) < 0.1 * np.linalg.norm(wanted)
    for factor, basis, values in zip(state.factors, state.bases, state.values, strict=True):
        np.testing.assert_allclose(basis @ np.diag(values) @ basis.T, factor, atol=0.02 * np.abs(factor).max())


def test_psgd_kron_whitens() -> None:
    seen, rows, columns = mixed(3000)
    left, right = last_state(optimizers.scale_by_psgd_kron(), seen).factors
    for q in (left, right):
        np.testing.assert_allclose(q, q.T, rtol=1e-12)
        assert np.linalg.eigvalsh(q).min() > 0
    white = np.stack([(left @ left @ g @ right @ right).reshape(-1) for g in seen])
    covariance = white.T @ white / len(white)
    # The factors never rest, since each gradient moves them.
    assert np.linalg.cond(np.kron(rows, columns)) > 30
    assert np.linalg.cond(covariance) < 5
    assert np.trace(covariance) / 6 == pytest.approx(1, abs=0.3)


def test_normuon_leaves_a_matrix_without_entries() -> None:
    tx = optimizers.normuon(0.1, b1=0.9, b2=0.9, eps=1e-8)
    params = {"empty": jnp.ones((0, 3)), "full": jnp.ones((2, 3))}
    _, state = tx.update(params, tx.init(params), params)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(state))


def test_normuon_against_its_equations() -> None:
    b1, b2, eps = 0.8, 0.9, 1e-8
    tx = optimizers.normuon(-1.0, b1=b1, b2=b2, eps=eps)
    update, state = jax.jit(tx.update), tx.init({"w": jnp.zeros((5, 3)), "b": jnp.zeros(3)})
    m, v, adam = np.zeros((5, 3)), np.zeros(3), Adam(0.9, b2, eps)

    def orthogonal(x: np.ndarray) -> np.ndarray:
        x = x / (np.linalg.norm(x) + eps)
        for _ in range(5):
            square = x.T @ x
            x = 3.4445 * x + x @ (-4.7750 * square + 2.0315 * square @ square)
        return x

    for g in gradients((5, 3), 4):
        m = b1 * m + (1 - b1) * g
        o = orthogonal(m)
        v = b2 * v + (1 - b2) * np.mean(o**2, axis=0)
        scaled = o / (np.sqrt(v) + eps)
        updates, state = update({"w": jnp.asarray(g), "b": jnp.asarray(g[0])}, state)
        np.testing.assert_allclose(updates["w"], 0.2 * np.sqrt(15) * scaled / np.linalg.norm(scaled), rtol=1e-6)
        np.testing.assert_allclose(updates["b"], adam(g[0]), rtol=1e-6)


def mixed_bits(x: Any) -> np.ndarray:
    x = np.atleast_1d(np.asarray(x, np.uint32))  # numpy warns of scalars that wrap around
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return x ^ (x >> np.uint32(16))


def signs(key: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """-1 where the highest bit of the hash is 0."""
    bits = mixed_bits(mixed_bits(np.arange(np.prod(shape))) ^ key)
    return np.where(bits >> np.uint32(31) == 0, -1.0, 1.0).reshape(shape)


def lower_bound(t: np.ndarray, v: np.ndarray) -> float:
    for _ in range(4):
        v = t @ (v / np.linalg.norm(v, axis=0))
    bound = float(np.linalg.norm(v, axis=0).max())
    assert 0.9 < bound / np.linalg.norm(t, 2) <= 1 + 1e-12
    return bound


def test_psgd_kron_against_its_equations() -> None:
    b1, eps, interval = 0.8, 0.1, 2
    tx = optimizers.psgd_kron(-1.0, b1=b1, eps=eps, precond_interval=interval)
    # The vector comes first in the order of the leaves.
    update, state = jax.jit(tx.update), tx.init({"b": jnp.zeros(3), "w": jnp.zeros((2, 2, 3))})
    means = {"b": np.zeros(3), "w": np.zeros((4, 3))}
    q: dict[str, Any] = {}
    bounds = {"b": [0.0], "w": [0.0, 0.0]}

    def applied(name: str, x: np.ndarray) -> np.ndarray:
        result: np.ndarray = q[name][0] ** 2 * x if name == "b" else q["w"][0] @ q["w"][0] @ x @ q["w"][1] @ q["w"][1]
        return result

    def moved(name: str, g: np.ndarray, key: np.ndarray) -> None:
        h = applied(name, g + (eps + np.finfo(float).eps * np.abs(g)) * signs(key, g.shape))
        for axis, (side, bound) in enumerate(zip(q[name], bounds[name], strict=True)):
            t = h**2 if name == "b" else h @ h.T if axis == 0 else h.T @ h
            others = h.size / len(side)
            least = others + (t.max() if name == "b" else lower_bound(t, signs(~key, (len(t), 8))))
            bounds[name][axis] = max(0.9 * bound + 0.1 * least, least)
            share = 0.05 / bounds[name][axis]
            if name == "b":
                q[name][axis] = side * (1 - share * (t - others)) ** 2
            else:
                gain = np.eye(len(t)) - share * (t - others * np.eye(len(t)))
                q[name][axis] = gain @ side @ gain
        if name == "w":
            largest = [np.abs(side).max() for side in q["w"]]
            q["w"] = [
                side * np.sqrt(largest[0] * largest[1]) / each for side, each in zip(q["w"], largest, strict=True)
            ]

    for step, g in enumerate(gradients((4, 3), 5)):
        g = g * 0.1 if step < 3 else 100 * g  # the last steps reach the limits
        given = {"b": g[0], "w": g}
        for number, (name, each) in enumerate(given.items()):
            if step == 0:
                scale = np.mean(each**4) ** 0.25 + eps
                q[name] = [scale**-0.5 * np.ones(3)] if name == "b" else [scale**-0.25 * np.eye(n) for n in (4, 3)]
            if step % interval == 0:
                moved(name, each, mixed_bits(mixed_bits(step + 0x9E3779B9) ^ np.uint32(number)))
            means[name] = b1 * means[name] + (1 - b1) * each
        updates, state = update({"b": jnp.asarray(g[0]), "w": jnp.asarray(g.reshape(2, 2, 3))}, state)
        for name, mean in means.items():
            u = applied(name, mean / (1 - b1 ** (step + 1)))
            average = np.sqrt(np.mean(u**2))
            wanted = np.clip(u * min(1, 2 / average), -10, 10)
            assert (average > 2) == (step >= 3)
            np.testing.assert_allclose(np.asarray(updates[name]).reshape(mean.shape), wanted, rtol=1e-6)
