"""Passes on sums: `negate-sums` and `fence-sums` change no bit, by StableHLO's reference interpreter."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from sonew_compiled import passes

X = np.random.default_rng(0).normal(size=(4, 8, 2)).astype(np.float32)
X[0, :, 0] = 0.0
X[1, :, 0] = [1, -1, 2, -2, 3, -3, 4, -4]


def negated(x: jax.Array) -> list[jax.Array]:
    whole = (8 * x).astype(jnp.int32)
    return [
        *(jnp.sum(-x, 1), jnp.sum(-x), jnp.sum(-x.reshape(32, 2), 0), jnp.sum(-whole, 1), jnp.sum(whole * -1, 0)),
        1 / jnp.sum(-x, 1),  # the sign of a zero
    ]


def moved(x: jax.Array) -> list[jax.Array]:
    y = x.reshape(8, 8)
    outer = jnp.einsum("ija,kb->ijakb", x, y[:2])
    return [(y @ y[:, :3]).T, outer.transpose(3, 4, 0, 1, 2), x - jnp.sum(x, 2, keepdims=True)]


# The interpreter does not know `flow.tensor.clone`, an operation of IREE: no program here needs a copy.
@pytest.mark.parametrize(("name", "program"), [("negate-sums", negated), ("fence-sums", moved)])
def test_the_bits_stay(name: str, program: Callable[[jax.Array], list[jax.Array]]) -> None:
    module = passes.parse(str(jax.jit(program).lower(X).compiler_ir("stablehlo")))
    before = evaluated(module)
    had = str(module)
    passes.run_pipeline(module, [passes.parse_pass(name)])
    assert str(module) != had
    for has, each in zip(evaluated(module), before, strict=True):
        np.testing.assert_array_equal(has.view(np.uint32), each.view(np.uint32))


def evaluated(module: ir.Module) -> list[np.ndarray]:
    with module.context, ir.Location.unknown():
        results = stablehlo.eval_module(module, [ir.DenseElementsAttr.get(X)])
    return [np.array(each) for each in results]
