"""KL-Shampoo and NorMuon against their equations in NumPy and float64, and against what they converge to."""

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
