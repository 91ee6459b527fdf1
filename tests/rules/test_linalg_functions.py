"""All of `jnp.linalg` through IREE: values against NumPy's in float64, derivatives against JAX's, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sonew_compiled.errors import UsageError
from sonew_compiled.trace import trace_function

Function = Callable[..., Any]
OnIree = Callable[..., list[Any]]

# Functions, in JAX or NumPy, of a well-conditioned 5 x 5 matrix and a 5 x 3 one; vectors are compared up to signs.
FUNCTIONS: dict[str, Function] = {
    "cholesky": lambda m, a, b: m.linalg.cholesky(a @ a.T),
    "cond": lambda m, a, b: m.linalg.cond(b),
    "cross": lambda m, a, b: m.linalg.cross(a[:3, :3], b[:3]),
    "det": lambda m, a, b: m.linalg.det(a),
    "diagonal": lambda m, a, b: m.linalg.diagonal(a, offset=1),
    "eigh": lambda m, a, b: [abs(each) for each in m.linalg.eigh(a @ a.T)],
    "eigvalsh": lambda m, a, b: m.linalg.eigvalsh(a @ a.T),
    "inv": lambda m, a, b: m.linalg.inv(a),
    "lstsq": lambda m, a, b: m.linalg.lstsq(b, a[:, :2])[:2],
    "matmul": lambda m, a, b: m.linalg.matmul(a, b),
    "matrix_norm": lambda m, a, b: [m.linalg.matrix_norm(b, ord=each) for each in ("fro", "nuc", 1)],
    "matrix_power": lambda m, a, b: m.linalg.matrix_power(a, -2),
    "matrix_rank": lambda m, a, b: m.linalg.matrix_rank(b),
    "matrix_transpose": lambda m, a, b: m.linalg.matrix_transpose(b),
    "multi_dot": lambda m, a, b: m.linalg.multi_dot([a, a, b]),
    "norm": lambda m, a, b: [m.linalg.norm(b, each) for each in (None, 2)],
    "outer": lambda m, a, b: m.linalg.outer(a[0], b[0]),
    "pinv": lambda m, a, b: m.linalg.pinv(b),
    "qr": lambda m, a, b: list(m.linalg.qr(b)),
    "slogdet": lambda m, a, b: list(m.linalg.slogdet(a)),
    "solve": lambda m, a, b: m.linalg.solve(a, b),
    "svd": lambda m, a, b: [abs(each) for each in m.linalg.svd(b, full_matrices=False)],
    "svdvals": lambda m, a, b: m.linalg.svdvals(b),
    "tensordot": lambda m, a, b: m.linalg.tensordot(a, b, axes=1),
    "tensorinv": lambda m, a, b: m.linalg.tensorinv(a, ind=1),
    "tensorsolve": lambda m, a, b: m.linalg.tensorsolve(a, b[:, 0]),
    "trace": lambda m, a, b: m.linalg.trace(a),
    "vecdot": lambda m, a, b: m.linalg.vecdot(a, a + 1),
    "vector_norm": lambda m, a, b: [m.linalg.vector_norm(b, ord=each) for each in (1, 2, 3)],
}

REFUSED: dict[str, tuple[Function, str]] = {
    "eig": (jnp.linalg.eig, "eig, which eigvals and roots take too, has no lowering; take eigh"),
    "eigvals": (jnp.linalg.eigvals, "eig, which eigvals and roots take too, has no lowering; take eigh"),
    "eigh of complex numbers": (lambda a: jnp.linalg.eigvalsh(a + 1j * a), "eigh of dtype complex64 has no lowering"),
    "svd of complex numbers": (lambda a: jnp.linalg.svdvals(a + 1j * a), "svd of dtype complex64 has no lowering"),
    "hessenberg": (jax.scipy.linalg.hessenberg, "hessenberg has no lowering; take qr"),
    "schur": (jax.scipy.linalg.schur, "schur, which .* has no lowering; of a symmetric matrix take functions of eigh"),
    "sqrtm": (jax.scipy.linalg.sqrtm, "schur, which sqrtm, .* has no lowering"),
    "solve_sylvester": (lambda a: jax.scipy.linalg.solve_sylvester(a, a, a), "schur, which .* solve_sylvester"),
    "tridiagonal": (jax.lax.linalg.tridiagonal, "tridiagonal has no lowering; take eigh"),
}

DERIVED: dict[str, Function] = {
    "qr": lambda a: jnp.sum(jnp.sin(jnp.linalg.qr(a)[0])) + jnp.sum(jnp.linalg.qr(a)[1] ** 3),
    "cholesky": lambda a: jnp.sum(jnp.sin(jnp.linalg.cholesky(a @ a.T))),
    "slogdet": lambda a: jnp.linalg.slogdet(a)[1],
    "eigh": lambda a: jnp.sum(jnp.sin(jnp.linalg.eigh(a + a.T)[0])) + jnp.sum(jnp.abs(jnp.linalg.eigh(a + a.T)[1])),
    "pinv": lambda a: jnp.sum(jnp.linalg.pinv(a[:, :3]) ** 2),
    "tridiagonal": lambda a: jnp.sum(jax.lax.linalg.tridiagonal_solve(a[0], a[1] + 4, a[2], a[:, :2]) ** 2),
}


@pytest.fixture
def matrices() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(5, 5)) + 3 * np.eye(5)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)


def assert_near(got: Any, wanted: Any, *, tolerance: float, name: str) -> None:
    """Asserts equality to a fraction of each array's largest entry."""
    for a, b in zip(jax.tree.leaves(got), map(np.asarray, jax.tree.leaves(wanted)), strict=True):
        assert a.shape == b.shape, name
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(), err_msg=name)


def test_each_public_function_is_computed_or_refused() -> None:
    public = {name for name in dir(jnp.linalg) if not name.startswith("_")}
    assert public == FUNCTIONS.keys() | (REFUSED.keys() & public)


def test_values_are_numpys_in_float64(on_iree: OnIree, matrices: tuple[np.ndarray, np.ndarray]) -> None:
    first, *others = on_iree(
        lambda a, b: [function(jnp, a, b) for function in FUNCTIONS.values()], *matrices, target="vmvx", times=3
    )
    for name, got in zip(FUNCTIONS, first, strict=True):
        wanted = FUNCTIONS[name](np, *(each.astype(np.float64) for each in matrices))
        assert_near(got, wanted, tolerance=2e-6, name=name)
    for other in others:
        assert_near(other, first, tolerance=0, name="again")


@pytest.mark.usefixtures("float64")
def test_derivatives_are_jaxs_in_float64(on_iree: OnIree, matrices: tuple[np.ndarray, np.ndarray]) -> None:
    """They are computed twenty times, because IREE's races on shared memory differ from call to call."""

    def every(a: jax.Array) -> list[Any]:
        return [jax.value_and_grad(function)(a) for function in DERIVED.values()]

    a = matrices[0]
    exact = jax.jit(every).lower(a.astype(np.float64)).compile({"xla_backend_optimization_level": 0})
    wanted = exact(a.astype(np.float64))
    with jax.enable_x64(False):
        gotten = on_iree(every, a, times=20)
    for got in gotten:
        for name, one, other in zip(DERIVED, got, wanted, strict=True):
            assert_near(one, other, tolerance=1e-5, name=name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_lowering_is_refused_in_one_line(name: str, matrices: tuple[np.ndarray, np.ndarray]) -> None:
    function, said = REFUSED[name]
    with pytest.raises(UsageError, match=said) as refused:
        trace_function(lambda a: jnp.real(jax.tree.leaves(function(a))[0]), [matrices[0]])
    assert "\n" not in str(refused.value)
