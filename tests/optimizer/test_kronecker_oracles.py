"""NorMuon against its equations in NumPy and float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
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
