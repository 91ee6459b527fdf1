"""Fourier transforms by matrix products, and complex numbers as pairs: values, derivatives and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sonew_compiled import passes
from sonew_compiled.errors import UsageError
from sonew_compiled.trace import trace_function

Function = Callable[..., Any]
ByRules = Callable[..., Any]
OnIree = Callable[..., list[Any]]

# Powers of two, products of small factors, 784 and primes; primes from 67 on use a convolution.
LENGTHS = [1, 2, 28, 67, 100, 784, 1009, 4096]

# Functions, in JAX or NumPy, of 4 real signals of 49 samples and as many complex ones.
TRANSFORMS: dict[str, Function] = {
    "fft": lambda m, x, z: [m.fft.fft(z), m.fft.fft(x[:, :35]), m.fft.fft(z[0, :11], 16)],
    "fft2": lambda m, x, z: m.fft.fft2(z.reshape(4, 7, 7)),
    "fftfreq": lambda m, x, z: m.fft.fftfreq(7, 0.5),
    "fftn": lambda m, x, z: m.fft.fftn(z.reshape(4, 7, 7), axes=(0, 2)),
    "fftshift": lambda m, x, z: m.fft.fftshift(z),
    "hfft": lambda m, x, z: m.fft.hfft(z),
    "ifft": lambda m, x, z: m.fft.ifft(z, norm="ortho"),
    "ifft2": lambda m, x, z: m.fft.ifft2(z.reshape(4, 7, 7)),
    "ifftn": lambda m, x, z: m.fft.ifftn(z.reshape(4, 7, 7)),
    "ifftshift": lambda m, x, z: m.fft.ifftshift(x),
    "ihfft": lambda m, x, z: m.fft.ihfft(x),
    "irfft": lambda m, x, z: m.fft.irfft(z),
    "irfft2": lambda m, x, z: m.fft.irfft2(z.reshape(4, 7, 7)),
    "irfftn": lambda m, x, z: m.fft.irfftn(z.reshape(4, 7, 7), norm="forward"),
    "rfft": lambda m, x, z: m.fft.rfft(x),
    "rfft2": lambda m, x, z: m.fft.rfft2(x.reshape(4, 7, 7)),
    "rfftfreq": lambda m, x, z: m.fft.rfftfreq(7, 0.5),
    "rfftn": lambda m, x, z: m.fft.rfftn(x.reshape(4, 7, 7)),
}

# Functions of two complex 3 x 4 matrices.
ARITHMETIC: dict[str, Function] = {
    "abs": lambda m, z, w: m.abs(z),
    "angle": lambda m, z, w: m.angle(z),
    "comparison": lambda m, z, w: m.where(m.real(z) > 0, z, w) * (z != w) + (z == w),
    "conj": lambda m, z, w: m.conj(z),
    "cumsum": lambda m, z, w: m.cumsum(z, axis=1),
    "division": lambda m, z, w: z / w,
    "einsum": lambda m, z, w: m.einsum("ij,ik->jk", z, m.conj(w)),
    "gather": lambda m, z, w: z[m.array([0, 2, 0])],
    "norm": lambda m, z, w: m.linalg.norm(z),
    "power": lambda m, z, w: z**w,
    "prod": lambda m, z, w: [m.prod(z), m.prod(w, axis=0)],
    "sign": lambda m, z, w: m.sign(z),
    "sqrt": lambda m, z, w: m.sqrt(z),
    "tan": lambda m, z, w: m.tan(z),
    "tanh": lambda m, z, w: m.tanh(z),
    "range": lambda m, z, w: z * m.arange(4, dtype=np.complex64),
}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def complex_normal(*shape: int) -> np.ndarray:
    return (normal(*shape) + 1j * normal(*shape, seed=1)).astype(np.complex64)


def assert_near(got: Any, wanted: Any, tolerance: float = 1e-6, name: str = "") -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.shape == b.shape, name
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(initial=1e-30), err_msg=name)


def parts(values: Any) -> list[Any]:
    """The parts of each complex array, which a module cannot return, and each real array."""
    return [
        part
        for each in jax.tree.leaves(values)
        for part in ((each.real, each.imag) if np.issubdtype(each.dtype, np.complexfloating) else (each,))
    ]


def test_transforms_of_any_length_against_float64(by_rules: ByRules) -> None:
    def every(x: jax.Array, z: jax.Array, half: jax.Array) -> list[jax.Array]:
        return [jnp.fft.fft(z), jnp.fft.ifft(z), jnp.fft.rfft(x), jnp.fft.irfft(half, x.shape[-1])]

    given = [(normal(3, n), complex_normal(3, n), complex_normal(3, n)[:, : n // 2 + 1]) for n in LENGTHS]
    found = by_rules(lambda *given: [every(*each) for each in given], *given)
    for n, got, (x, z, half) in zip(LENGTHS, found, given, strict=True):
        assert [each.dtype for each in got] == [np.complex64, np.complex64, np.complex64, np.float32]
        exact, wide = z.astype(np.complex128), half.astype(np.complex128)
        wanted = [np.fft.fft(exact), np.fft.ifft(exact), np.fft.rfft(x.astype(np.float64)), np.fft.irfft(wide, n)]
        assert_near(got, wanted, name=f"length {n}")


def test_each_public_transform_is_here() -> None:
    assert {name for name in dir(jnp.fft) if not name.startswith("_")} == TRANSFORMS.keys()


def test_iree_computes_transforms_and_complex_arithmetic(on_iree: OnIree) -> None:
    """Values are compared with NumPy in float64, and one gradient of everything with JAX in float64."""
    signals, numbers = (
        [normal(4, 49), normal(4, 49, seed=1)],
        [normal(3, 4), normal(3, 4, seed=1), *normal(2, 3, 4, seed=2)],
    )

    def transforms(m: Any, x: Any, y: Any) -> list[Any]:
        return [parts(function(m, x, x + 1j * y)) for function in TRANSFORMS.values()]

    def arithmetic(m: Any, a: Any, b: Any, c: Any, d: Any) -> list[Any]:
        return [parts(function(m, a + 1j * b, c + 1j * d)) for function in ARITHMETIC.values()]

    def summed(*numbers: jax.Array) -> jax.Array:
        return sum(jnp.sum(jnp.sin(each)) for each in jax.tree.leaves(arithmetic(jnp, *numbers)))

    gradients = jax.grad(summed, argnums=(0, 1, 2, 3))
    for got in on_iree(
        lambda *given: [transforms(jnp, *given[:2]), arithmetic(jnp, *given[2:]), gradients(*given[2:])],
        *signals,
        *numbers,
        times=3,
    ):
        exact = [transforms(np, *(each.astype(np.float64) for each in signals))]
        wide = [each.astype(np.float64) for each in numbers]
        exact.append(arithmetic(np, *wide))
        for names, values, wanted in zip((TRANSFORMS, ARITHMETIC), got, exact, strict=False):
            for name, one, other in zip(names, values, wanted, strict=True):
                assert_near(one, other, 2e-6, name)
        with jax.enable_x64(True):
            assert_near(got[2], jax.jit(gradients)(*wide), 1e-5, "gradients")


def everything(x: jax.Array) -> jax.Array:
    """Uses complex numbers in a loop, a branch, products, sums, divisions, angles and logarithms."""
    z = jnp.fft.fft(x) / 100

    def turned(c: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        c = c * jnp.exp(0.1j) / (1 + 0.1 * jnp.conj(c))
        return c, jnp.sum(c)

    c, sums = jax.lax.scan(turned, z, None, length=4)
    c = jax.lax.cond(jnp.sum(x) > 0, lambda c: c * 2, jnp.conj, c)
    parts = jnp.sum(jnp.real(jnp.log(sums + 3))) + jnp.sum(jnp.imag(c @ jnp.conj(c.T))) + jnp.sum(jnp.angle(c))
    return jnp.sum(jnp.abs(c) ** 2) + parts + jnp.sum(jnp.where(c == z, 1.0, 2.0))


# Losses of 4 signals of 784 samples.
LOSSES: dict[str, Function] = {
    "spectrum": lambda x: jnp.mean(jnp.abs(jnp.fft.rfft(x)) @ normal(393, 3)),
    "correlation": lambda x: jnp.sum(jnp.fft.irfft(jnp.fft.rfft(x) * jnp.conj(jnp.fft.rfft(x[::-1])), n=784) ** 2),
    "everything": everything,
}


def test_vmvx_computes_losses_and_their_gradients(on_iree: OnIree) -> None:
    def every(x: jax.Array) -> Any:
        return {name: jax.value_and_grad(loss)(x[:, :16] if loss is everything else x) for name, loss in LOSSES.items()}

    x = normal(4, 784)
    wanted = jax.jit(every)(x)
    for got in on_iree(every, x, target="vmvx", times=2):
        for name in LOSSES:
            assert_near(got[name], wanted[name], 2e-5, name)


def test_a_policy_of_sixteen_bits_leaves_the_transform_in_float32(on_iree: OnIree) -> None:
    """Rounded to bfloat16 in between, the sum of 784 terms would be off by a tenth."""
    x = np.asarray(jnp.asarray(normal(2, 784), jnp.bfloat16).astype(jnp.float32))
    (got,) = on_iree(lambda x: jnp.real(jnp.fft.rfft(x)), x, precision="bf16")
    assert_near(got, np.real(np.fft.rfft(x)), 2**-8)


def test_constants_of_complex_numbers_keep_every_bit(on_iree: OnIree) -> None:
    """MLIR writes few numbers, many, equal ones and infinite ones in different ways."""
    few = np.array([1 + 2j, np.pi - 1e-8j, np.inf - 0j, -3j], np.complex64)
    many = complex_normal(300)

    def function(x: jax.Array) -> list[jax.Array]:
        numbers = [x * 0 + 1, x[:4] * 0 + 1, x]
        constants = [jnp.asarray(many), jnp.asarray(few), jnp.full((300,), 0.1 + 0.2j, jnp.complex64)]
        products = [jax.lax.complex(jnp.real(c) * n, jnp.imag(c) * n) for n, c in zip(numbers, constants, strict=True)]
        return [part(each) for each in products for part in (jnp.real, jnp.imag)]

    x = np.ones(300, np.float32)
    (got,) = on_iree(function, x)
    for a, b in zip(got, function(x), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: jnp.real(jnp.cumprod(jax.lax.complex(x, x))), "reduce_window by multiply of complex numbers"),
        (lambda x: jax.lax.complex(x, x), "predict takes or gives complex numbers"),
        (lambda x: jnp.real(jnp.sort(jax.lax.complex(x, x))), "sort of complex numbers has no lowering"),
    ],
)
def test_what_is_left_is_refused_in_one_line(function: Callable[..., Any], said: str) -> None:
    module = passes.parse(trace_function(function, [normal(8)]))
    with pytest.raises(UsageError, match=said) as refused:
        passes.run_pipeline(module)
    assert "\n" not in str(refused.value)
