"""Roots, eigenvectors and orthonormal bases by matrix products alone, against LAPACK's in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sonew_compiled import optimizer as optimizers
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.optimizer._inverse_root import inverse_root
from sonew_compiled.optimizer._jacobi import symmetric_eigen
from sonew_compiled.optimizer._orthonormal import orthonormal, power_step
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.trace import trace_update


def positive(n: int, seed: int, samples: int | None = None) -> np.ndarray:
    g = np.random.default_rng(seed).normal(size=(n, samples or n))
    return g @ g.T


def power(a: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(a)
    return (vectors * values**exponent) @ vectors.T


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("n", [1, 7, 30])
def test_an_inverse_root_is_that_of_the_eigendecomposition(n: int, p: int) -> None:
    a = positive(n, seed=n, samples=max(n // 2, 1))
    wanted = power(a + 1e-6 * np.linalg.norm(a) * np.eye(n), -1 / p)
    root, error = inverse_root(jnp.asarray(a), p, 1e-6)
    np.testing.assert_allclose(root, wanted, atol=1e-6 * np.abs(wanted).max())
    assert error < 1e-4
    rounded, error = inverse_root(jnp.asarray(a, jnp.float32), p, 1e-6)
    np.testing.assert_allclose(rounded, wanted, atol=0.1 * np.abs(wanted).max())
    assert error < 1e-4


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("ridge", [1e-7, 1e-5, 1e-3, 1e-1])
def test_a_root_of_any_spectrum_within_the_damping_converges(p: int, ridge: float) -> None:
    """The scales are chosen for the smallest possible eigenvalue, and must suit every larger one too."""
    a = np.concatenate([[0.0], np.logspace(-8, 0, 50)])
    a /= np.linalg.norm(a)
    root, error = inverse_root(jnp.diag(jnp.asarray(a)), p, ridge)
    np.testing.assert_allclose(np.diag(root), (a + ridge) ** (-1 / p), rtol=1e-7)
    assert error < 1e-4


@pytest.mark.parametrize("size", [1e-37, 1e-30, 1e-20, 1e20, 1e30])
def test_the_damping_of_a_root_is_relative_for_every_size(size: float) -> None:
    """The squares of the entries would be zero or infinite in float32."""
    matrix = jnp.asarray(positive(7, seed=0), jnp.float32)
    root, error = inverse_root(size * matrix, 4, 1e-4)
    np.testing.assert_allclose(root * size**0.25, inverse_root(matrix, 4, 1e-4)[0], rtol=1e-4, atol=1e-4)
    assert error < 1e-3


def test_a_fourth_root_takes_eleven_steps() -> None:
    """Unscaled it takes 21. Each step is four matrix products, which are most of Shampoo's time."""
    text = str(jax.make_jaxpr(lambda a: inverse_root(a, 4, 1e-6))(jnp.eye(3)))
    assert text.count("dot_general") == 4 * 10


@pytest.mark.parametrize("name", ["shampoo", "full-adagrad"])
def test_roots_are_computed_without_a_loop(name: str) -> None:
    """In a branch, IREE 3.13 keeps the memory of a loop's rounds; the autoencoder under Shampoo used all memory."""
    make = optimizer_factory(optimizer_settings(name, precond_interval=7))
    update = trace_update(init=lambda key: {"w": jnp.zeros((6, 4))}, optimizer=make)
    branch = update[update.index("stablehlo.case") :]
    assert "stablehlo.dot_general" in branch
    assert "stablehlo.while" not in update


def test_a_root_that_there_is_none_of_is_not_taken() -> None:
    _, error = inverse_root(jnp.diag(jnp.asarray([1.0, -0.1, 1.0])), 4, 1e-6)
    assert not error < 0.1
    tx = optimizers.scale_by_full_adagrad()
    state = tx.init({"w": jnp.zeros(3)})
    broken = state._replace(statistics=jnp.diag(jnp.asarray([1.0, -0.1, 1.0])))
    updates, after = tx.update({"w": 1e-3 * jnp.ones(3)}, broken)
    np.testing.assert_array_equal(after.root, state.root)
    np.testing.assert_allclose(updates["w"], 1e-3 * np.ones(3), rtol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("n", [1, 2, 3, 6, 9, 17])
def test_jacobi_finds_eigenvalues_and_vectors(n: int) -> None:
    a = np.stack([positive(n, seed=0), positive(n, seed=1, samples=1), np.zeros((n, n))])
    values, vectors = symmetric_eigen(jnp.asarray(a))
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(a), atol=1e-10)
    np.testing.assert_allclose(vectors @ (values[..., None] * np.swapaxes(vectors, 1, 2)), a, atol=1e-10)
    np.testing.assert_allclose(np.swapaxes(vectors, 1, 2) @ vectors, np.broadcast_to(np.eye(n), a.shape), atol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("n", [1, 5, 32, 70])
def test_gram_schmidt_is_qr(n: int) -> None:
    a = np.random.default_rng(n).normal(size=(n, n))
    q, r = np.linalg.qr(a)
    np.testing.assert_allclose(orthonormal(jnp.asarray(a)), q * np.sign(np.diag(r)), atol=1e-9)
    # The statistics of two gradients; all but two columns of the product consist of damping.
    few = jnp.asarray(positive(n, seed=n, samples=2), jnp.float32)
    basis = jnp.eye(n, dtype=jnp.float32)
    for _ in range(5):
        basis = power_step(few, basis, 1e-6)
        np.testing.assert_allclose(basis.T @ basis, np.eye(n), atol=1e-5)


@pytest.mark.usefixtures("float64")
def test_orthogonal_iteration_finds_the_eigenvectors() -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    a = jnp.asarray((rotation * 2.0 ** -np.arange(6)) @ rotation.T)
    basis = jax.lax.fori_loop(0, 60, lambda _, q: power_step(a, q, 1e-12), jnp.eye(6))
    np.testing.assert_allclose(np.abs(rotation.T @ basis), np.eye(6), atol=1e-6)
