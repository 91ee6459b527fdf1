"""Linear algebra by products and loops: against JAX, whose numbers are LAPACK's, and against float64."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

Function = Callable[..., Any]
ByRules = Callable[..., Any]
OnIree = Callable[..., list[np.ndarray]]

SIZES = [1, 3, 17, 64]
SHAPES = [(1, 1), (1, 7), (5, 3), (3, 5), (2, 3, 6, 4), (70, 40), (4, 0)]

CONDITIONS = [10.0, 1e4]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def complex_normal(*shape: int) -> np.ndarray:
    return (normal(*shape) + 1j * normal(*shape, seed=1)).astype(np.complex64)


def positive(n: int, *, condition: float = 10.0) -> np.ndarray:
    """A symmetric matrix whose eigenvalues go from 1 down to that fraction of it."""
    basis = np.linalg.qr(normal(n, n).astype(np.float64))[0]
    return ((basis * np.logspace(0, -np.log10(condition), n)) @ basis.T).astype(np.float32)


def assert_same(got: Any, wanted: Any, *, tolerance: float) -> None:
    """Asserts equality to a fraction of each array's largest entry, with NaN in the same places."""
    got, wanted = jax.tree.leaves(got), jax.tree.leaves(wanted)
    assert len(got) == len(wanted)
    for a, b in zip(map(np.asarray, got), map(np.asarray, wanted), strict=True):
        assert a.shape == b.shape
        if np.issubdtype(b.dtype, np.integer):
            np.testing.assert_array_equal(a, b)
        elif b.size:
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.nanmax(np.abs(b), initial=1e-30))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("make", [normal, complex_normal])
def test_qr_is_lapacks(by_rules: ByRules, make: Callable[..., np.ndarray], shape: tuple[int, ...]) -> None:
    def both(a: jax.Array) -> Any:
        return [lax.linalg.qr(a, full_matrices=full) for full in (False, True)]

    a = make(*shape)
    assert_same(by_rules(both, a), both(a), tolerance=1e-5)


@pytest.mark.parametrize("n", [*SIZES, 128])
def test_qr_is_orthogonal_and_a_product(by_rules: ByRules, n: int) -> None:
    """The squares of some entries are zero or infinite in float32."""
    a = np.float32([[[1e-30]], [[1.0]], [[1e30]]]) * normal(3, n, n)
    q, r = (x.astype(np.float64) for x in map(np.asarray, by_rules(jnp.linalg.qr, a)))
    assert np.abs(np.swapaxes(q, -1, -2) @ q - np.eye(n)).max() < 2e-6
    assert (np.abs(q @ r - a).max(axis=(-1, -2)) < 2e-6 * np.abs(a).max(axis=(-1, -2)) * np.sqrt(n)).all()
    assert not np.tril(r, -1).any()


def test_qr_of_columns_that_depend_on_each_other(by_rules: ByRules) -> None:
    a = np.concatenate([normal(6, 2), normal(6, 2), np.zeros((6, 1), np.float32)], axis=1)
    q, r = map(np.asarray, by_rules(jnp.linalg.qr, a))
    assert np.abs(q.T @ q - np.eye(5)).max() < 1e-6
    np.testing.assert_allclose(q @ r, a, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 6, 6)], ids=str)
def test_pivoted_qr_is_lapacks(by_rules: ByRules, shape: tuple[int, ...]) -> None:
    a = normal(*shape)
    for full in (False, True):
        options = {"pivoting": True, "full_matrices": full}
        assert_same(by_rules(lax.linalg.qr, a, **options), lax.linalg.qr(a, **options), tolerance=1e-5)


@pytest.mark.parametrize("mode", ["left", "right"])
def test_products_with_q_need_no_q(by_rules: ByRules, mode: str) -> None:
    a, c = normal(5, 5), normal(5, 5, seed=1)
    multiply = jax.scipy.linalg.qr_multiply
    assert_same(by_rules(multiply, a, c, mode=mode), multiply(a, c, mode=mode), tolerance=1e-5)
    assert_same(by_rules(jnp.linalg.qr, a, mode="raw"), jnp.linalg.qr(a, mode="raw"), tolerance=1e-5)


@pytest.mark.parametrize("make", [normal, complex_normal])
def test_triangular_solve_in_all_its_variants(by_rules: ByRules, make: Callable[..., np.ndarray]) -> None:
    a = (0.2 * make(2, 7, 7) + 2 * np.eye(7)).astype(make(1).dtype)
    names = ("left_side", "lower", "transpose_a", "conjugate_a", "unit_diagonal")
    variants = [dict(zip(names, each, strict=True)) for each in product([False, True], repeat=5)]

    def solve_all(a: jax.Array, b: jax.Array) -> list[jax.Array]:
        right = jnp.swapaxes(b, -1, -2)
        return [lax.linalg.triangular_solve(a, b if each["left_side"] else right, **each) for each in variants]

    b = make(2, 7, 3)
    assert_same(by_rules(solve_all, a, b), solve_all(a, b), tolerance=1e-5)


@pytest.mark.parametrize("n", [*SIZES, 128])
def test_cholesky_against_float64(by_rules: ByRules, n: int) -> None:
    a = np.stack([positive(n, condition=condition) for condition in CONDITIONS])
    factors = np.asarray(by_rules(jnp.linalg.cholesky, a)).astype(np.float64)
    assert not np.triu(factors, 1).any()
    assert np.abs(factors @ np.swapaxes(factors, -1, -2) - a).max() < 1e-6
    for factor, each, condition in zip(factors, a, CONDITIONS, strict=True):
        assert_same(factor, np.linalg.cholesky(each.astype(np.float64)), tolerance=2e-7 * condition)


def test_cholesky_of_a_matrix_that_is_not_positive_definite_is_nan(by_rules: ByRules) -> None:
    a = np.stack([np.diag([1.0, 2.0, -1.0]), np.zeros((3, 3)), np.eye(3)]).astype(np.float32)
    assert_same(by_rules(jnp.linalg.cholesky, a), jnp.linalg.cholesky(a), tolerance=0.0)


def test_cholesky_update_adds_a_vector(by_rules: ByRules) -> None:
    r, w = np.triu(normal(6, 6)), normal(6, seed=1)
    w[2] = 0
    assert_same(by_rules(lax.linalg.cholesky_update, r, w), lax.linalg.cholesky_update(r, w), tolerance=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("make", [normal, complex_normal])
def test_lu_takes_lapacks_pivots(by_rules: ByRules, make: Callable[..., np.ndarray], shape: tuple[int, ...]) -> None:
    a = make(*shape)
    assert_same(by_rules(lax.linalg.lu, a), lax.linalg.lu(a), tolerance=1e-4)


def test_lu_of_a_singular_matrix(by_rules: ByRules) -> None:
    a = np.array([[0.0, 1.0, 2.0], [0.0, 2.0, 1.0], [0.0, 4.0, 4.0]], np.float32)
    assert_same(by_rules(lax.linalg.lu, a), lax.linalg.lu(a), tolerance=0.0)


@pytest.mark.parametrize("n", SIZES)
def test_solve_and_inverse_against_float64(by_rules: ByRules, n: int) -> None:
    basis = np.linalg.qr(normal(n, n, seed=3))[0]
    a = np.stack([positive(n, condition=condition) @ basis for condition in CONDITIONS])
    b = normal(len(CONDITIONS), n, 2, seed=4)
    got = by_rules(lambda a, b: (jnp.linalg.solve(a, b), jnp.linalg.inv(a), *jnp.linalg.slogdet(a)), a, b)
    for index, condition in enumerate(CONDITIONS):
        exact = a[index].astype(np.float64)
        wanted = (np.linalg.solve(exact, b[index]), np.linalg.inv(exact))
        assert_same([x[index] for x in got[:2]], wanted, tolerance=1e-6 * condition)
        assert_same([x[index] for x in got[2:]], list(np.linalg.slogdet(exact)), tolerance=1e-4)


@pytest.mark.parametrize("n", [1, 64])
def test_eigh_against_float64(by_rules: ByRules, n: int) -> None:
    a = np.stack([positive(n, condition=condition) for condition in CONDITIONS])
    a[1] -= 0.3 * np.eye(n, dtype=np.float32)
    exact = a.astype(np.float64)
    values, vectors = (x.astype(np.float64) for x in map(np.asarray, by_rules(jnp.linalg.eigh, a)))
    size = np.sqrt(n)
    assert np.abs(values - np.linalg.eigvalsh(exact)).max() < 1e-6 * size
    assert np.abs((vectors * values[:, None, :]) @ np.swapaxes(vectors, -1, -2) - exact).max() < 1e-6 * size
    assert np.abs(np.swapaxes(vectors, -1, -2) @ vectors - np.eye(n)).max() < 1e-6 * size


def test_eigh_reads_one_triangle(by_rules: ByRules) -> None:
    a = normal(5, 5)
    for uplo in ("L", "U"):
        got = by_rules(jnp.linalg.eigh, a, UPLO=uplo, symmetrize_input=False)[0]
        assert_same(got, np.linalg.eigh(a.astype(np.float64), UPLO=uplo)[0], tolerance=1e-6)


@pytest.mark.parametrize("n", [1, 64])
def test_svd_against_float64(by_rules: ByRules, n: int) -> None:
    basis = np.linalg.qr(normal(n, n, seed=3))[0]
    a = np.stack([positive(n, condition=condition) @ basis for condition in CONDITIONS])
    exact = a.astype(np.float64)
    u, s, vh = (x.astype(np.float64) for x in map(np.asarray, by_rules(jnp.linalg.svd, a)))
    assert np.abs(s - np.linalg.svd(exact)[1]).max() < 2e-7 * np.sqrt(n)
    assert np.abs((u * s[:, None, :]) @ vh - exact).max() < 1e-6
    for basis in (np.swapaxes(u, -1, -2), vh):
        assert np.abs(basis @ np.swapaxes(basis, -1, -2) - np.eye(n)).max() < 1e-6 * np.sqrt(n)


@pytest.mark.parametrize("shape", [(2, 6, 4), (1, 3), (4, 0)], ids=str)
def test_svd_of_any_shape_has_orthonormal_vectors(by_rules: ByRules, shape: tuple[int, ...]) -> None:
    """A singular value may be zero: the last column equals the first."""
    a = normal(*shape)
    if a.size:
        a[..., -1] = a[..., 0]

    def every(a: jax.Array) -> Any:
        return [jnp.linalg.svd(a, full_matrices=full) for full in (False, True)], jnp.linalg.svd(a, compute_uv=False)

    both, values = by_rules(every, a)
    for full, (u, s, vh) in zip((False, True), both, strict=True):
        wanted = np.linalg.svd(a, full_matrices=full)
        assert [x.shape for x in (u, s, vh)] == [x.shape for x in wanted]
        assert_same((s, values), (wanted[1], wanted[1]), tolerance=2e-6)
        k = s.shape[-1]
        product = (u[..., :k] * s[..., None, :]) @ vh[..., :k, :]
        np.testing.assert_allclose(product, a, rtol=0, atol=1e-6 * s.max(initial=0))
        for rows in (np.swapaxes(u, -1, -2), np.asarray(vh)):
            eye = np.broadcast_to(np.eye(rows.shape[-2]), (*rows.shape[:-1], rows.shape[-2]))
            np.testing.assert_allclose(rows @ np.swapaxes(rows, -1, -2), eye, atol=3e-6)


def test_what_is_not_finite_has_no_decomposition(by_rules: ByRules) -> None:
    a = normal(2, 4, 4)
    a[0, 1, 2] = np.nan
    for function in (jnp.linalg.eigh, jnp.linalg.svd):
        for result in by_rules(function, a):
            assert np.isnan(result[0]).all()
            assert np.isfinite(result[1]).all()


def test_tridiagonal_systems_take_pivots(by_rules: ByRules) -> None:
    """Half of the rows of random diagonals are exchanged; one system is singular."""
    lower, main, upper, b = normal(3, 9), normal(3, 9, seed=1), normal(3, 9, seed=2), normal(3, 9, 2, seed=3)
    main[2], lower[2], upper[2] = 0, 0, 0
    got = by_rules(lax.linalg.tridiagonal_solve, lower, main, upper, b)
    assert_same(got, lax.linalg.tridiagonal_solve(lower, main, upper, b), tolerance=1e-5)


# Functions of a well-conditioned matrix; their derivatives use JAX's own rules.
DERIVED: dict[str, Function] = {
    "qr": lambda a: jnp.sum(jnp.sin(jnp.linalg.qr(a)[0])) + jnp.sum(jnp.linalg.qr(a)[1] ** 3),
    "qr complete": lambda a: jnp.sum(jnp.sin(jnp.linalg.qr(a[:, :3], mode="complete")[0])),
    "cholesky": lambda a: jnp.sum(jnp.sin(jnp.linalg.cholesky(a @ a.T))),
    "cho_solve": lambda a: jnp.sum(jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(a @ a.T), a[:, 0]) ** 2),
    "solve_triangular": lambda a: jnp.sum(jax.scipy.linalg.solve_triangular(a, a[:, :2], trans=1) ** 2),
    "lu": lambda a: jnp.sum(jnp.sin(jax.scipy.linalg.lu(a)[1])) + jnp.sum(jax.scipy.linalg.lu(a)[2] ** 2),
    "solve": lambda a: jnp.sum(jnp.linalg.solve(a, a[:, :2] ** 2) ** 2),
    "inv": lambda a: jnp.sum(jnp.linalg.inv(a) ** 2),
    "det": lambda a: jnp.linalg.det(a),
    "slogdet": lambda a: jnp.linalg.slogdet(a)[1],
    "expm": lambda a: jnp.sum(jax.scipy.linalg.expm(a / 8) ** 2),
    "eigh": lambda a: jnp.sum(jnp.sin(jnp.linalg.eigh(a + a.T)[0])) + jnp.sum(jnp.abs(jnp.linalg.eigh(a + a.T)[1])),
    "svd": lambda a: jnp.sum(jnp.sin(jnp.linalg.svd(a)[1])) + jnp.sum(jnp.abs(jnp.linalg.svd(a)[0])),
    "matrix_power": lambda a: jnp.sum(jnp.linalg.matrix_power(a / 4, -3)),
}


def well_conditioned(*batch: int) -> np.ndarray:
    return normal(*batch, 6, 6) + 3 * np.eye(6, dtype=np.float32)


@pytest.mark.parametrize("name", DERIVED)
def test_values_and_derivatives_are_jaxs(by_rules: ByRules, name: str) -> None:
    """Derivatives are taken backward, and forward in a batch."""
    function = DERIVED[name]

    def derivatives(a: jax.Array) -> Any:
        return jax.value_and_grad(function)(a[0]), jax.vmap(lambda a: jax.jvp(function, (a,), (jnp.sin(a),)))(a)

    a = well_conditioned(2)
    assert_same(by_rules(derivatives, a), jax.jit(derivatives)(a), tolerance=1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sixteen_bits_are_rounded_once(by_rules: ByRules, dtype: Any) -> None:
    """LAPACK has no such types, so JAX refuses these on processors."""
    a = jnp.asarray(positive(8), dtype)
    wide = a.astype(jnp.float32)

    def function(a: jax.Array) -> list[jax.Array]:
        return [lax.linalg.cholesky(a), *lax.linalg.qr(a), lax.linalg.lu(a)[0]]

    for got, exact in zip(by_rules(function, a), by_rules(function, wide), strict=True):
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, exact.astype(dtype))


def test_a_policy_of_sixteen_bits_leaves_it_in_float32(on_iree: OnIree) -> None:
    """Rounded to bfloat16 in between, the factor of this matrix is NaN."""
    a = np.asarray(jnp.asarray(positive(8, condition=300.0), jnp.bfloat16).astype(jnp.float32))
    (got,) = on_iree(jnp.linalg.cholesky, a, precision="bf16")
    assert_same(got, jnp.linalg.cholesky(a), tolerance=2**-8)
