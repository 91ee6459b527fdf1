"""Functions of many tensors, whose kernels IREE's runtime refuses without `bound-kernels` and `bound-numbers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

# More than the 64 buffers of a kernel on processors.
COUNT = 70


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_functions_of_many_tensors(on_iree: Callable[..., list[Any]], target: str) -> None:
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=3).astype(np.float32) for _ in range(COUNT)]
    numbers = [rng.normal(size=()).astype(np.float32) for _ in range(COUNT)]

    def functions(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        vectors, numbers = arrays[:COUNT], arrays[COUNT:]
        total = sum((jnp.sin(each) for each in vectors), jnp.zeros(3))
        norms = jnp.stack([jnp.sqrt(jnp.sum(each * each)) for each in vectors])
        return total, norms, jnp.stack([jnp.tanh(each) for each in numbers]), sum(map(jnp.tanh, numbers), jnp.zeros(()))

    (got,) = on_iree(functions, *vectors, *numbers, target=target)
    table, line = np.stack(vectors).astype(np.float64), np.stack(numbers).astype(np.float64)
    wanted = np.sin(table).sum(0), np.linalg.norm(table, axis=1), np.tanh(line), np.tanh(line).sum()
    for here, want in zip(got, wanted, strict=True):
        np.testing.assert_allclose(here, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_the_steps_of_many_optimizers(on_iree: Callable[..., list[Any]], target: str) -> None:
    """Numbers that do not depend on each other, which IREE computes in one kernel all the same."""
    steps = [np.array(number, np.int32) for number in range(20)]

    def functions(x: jax.Array, *steps: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        later = [step + 1 for step in steps]
        scales = [1 - 0.9 ** step.astype(jnp.float32) for step in later]
        return later, jnp.concatenate([x / scale for scale in scales])

    x = np.arange(1, 3, dtype=np.float32)
    ((later, scaled),) = on_iree(functions, x, *steps, target=target)
    assert [int(step) for step in later] == [*range(1, 21)]
    wanted = np.concatenate([x / (1 - 0.9**step) for step in range(1, 21)])
    np.testing.assert_allclose(scaled, wanted, rtol=1e-5)
