"""Unrolled loops, by StableHLO's reference interpreter, against XLA's of the same functions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from sonew_compiled import passes

STEPS = 12
KERNEL = np.array([[0, 1, -1], [2, 0, 1], [1, -1, 0]], np.float32)
INPUTS = np.random.default_rng(0).integers(-2, 3, (STEPS, 3)).astype(np.float32)


def _scan(kernel: jax.Array, inputs: jax.Array) -> Any:
    def step(carry: jax.Array, x: jax.Array) -> Any:
        carry = jnp.clip(carry @ kernel + x, -3, 3)
        return carry, (carry * 2, -x)

    return lax.scan(step, jnp.zeros(3), inputs)


def _gradient(kernel: jax.Array, inputs: jax.Array) -> jax.Array:
    return jax.grad(lambda kernel: jnp.sum(_scan(kernel, inputs)[1][0] ** 2))(kernel)


def _nested(kernel: jax.Array, inputs: jax.Array) -> Any:
    def outer(carry: jax.Array, _: None) -> Any:
        return _scan(kernel, inputs + carry)[0], carry

    return lax.scan(outer, jnp.ones(3), None, length=STEPS)


def _from_four(kernel: jax.Array, inputs: jax.Array) -> Any:
    def body(index: jax.Array, stack: jax.Array) -> jax.Array:
        return lax.dynamic_update_index_in_dim(stack, inputs[index] @ kernel + stack[index - 1], index, 0)

    return lax.fori_loop(4, STEPS, body, inputs)


def _until(kernel: jax.Array, inputs: jax.Array) -> Any:
    """Ends on what it computes."""
    return lax.while_loop(lambda v: jnp.sum(v[1]) < 9, lambda v: (v[0], v[1] + v[0][0, 1]), (kernel, inputs[0]))[1]


# The loops that are left with room for all iterations, for a few in one, and for one.
LOOPS = {_scan: (0, 1, 1), _gradient: (0, 2, 2), _nested: (2, 2, 2), _from_four: (0, 1, 1), _until: (1, 1, 1)}


@pytest.mark.parametrize("function", LOOPS, ids=lambda function: function.__name__)
def test_the_results_stay(function: Callable[..., Any]) -> None:
    want = jax.tree.leaves(jax.jit(function)(KERNEL, INPUTS))
    sizes = set()
    for operations, left in zip((1_000, 120, 2), LOOPS[function], strict=True):
        module = passes.parse(jax.jit(function).lower(KERNEL, INPUTS).as_text())
        names = (f"unroll-loops:operations={operations},moved=0", "forward-rows", "join-products:alike=3")
        passes.run_pipeline(module, [passes.parse_pass(name) for name in names])
        text = passes.to_text(module)
        assert text.count("stablehlo.while(") == left, operations
        sizes.add(text.count(" = "))
        with module.context:
            got = stablehlo.eval_module(module, [ir.DenseElementsAttr.get(each) for each in (KERNEL, INPUTS)])
        for here, there in zip(got, want, strict=True):
            # All numbers are small integers.
            np.testing.assert_array_equal(np.array(list(here)).reshape(there.shape), there)
    assert len(sizes) == (1 if LOOPS[function][0] == LOOPS[function][1] else 3)


def test_the_gradient_of_a_recurrence_is_one_product() -> None:
    """Neither it nor the products with the inputs are made step by step, and the only stack is that of the results."""
    inputs, weights = np.stack([INPUTS, -INPUTS, INPUTS[::-1]], 1), np.ascontiguousarray(KERNEL.T)

    def gradient(kernel: jax.Array, weights: jax.Array, inputs: jax.Array) -> Any:
        def loss(kernel: jax.Array, weights: jax.Array) -> jax.Array:
            def step(carry: jax.Array, x: jax.Array) -> Any:
                carry = jnp.clip(carry @ kernel + x @ weights, -3, 3)
                return carry, carry

            return jnp.sum(lax.scan(step, jnp.zeros((3, 3)), inputs)[1] ** 2)

        return jax.grad(loss, argnums=(0, 1))(kernel, weights)

    given = (KERNEL, weights, inputs)
    module = passes.parse(jax.jit(gradient).lower(*given).as_text())
    names = ("unroll-loops:moved=0", "forward-rows", "join-products")
    passes.run_pipeline(module, [passes.parse_pass(name) for name in names])
    text = passes.to_text(module)
    assert text.count("stablehlo.dynamic_update_slice") == STEPS
    # One for each step forwards and, but for the first, backwards, one for the inputs, and two gradients.
    assert text.count("stablehlo.dot_general") == 2 * STEPS + 2
    with module.context:
        got = stablehlo.eval_module(module, [ir.DenseElementsAttr.get(each) for each in given])
    for here, there in zip(got, jax.jit(gradient)(*given), strict=True):
        np.testing.assert_array_equal(np.array(list(here)).reshape(there.shape), there)


def test_loops_that_move_little_stay() -> None:
    # The kernel, the inputs and two stacks, in each iteration.
    copied = (KERNEL.nbytes + 3 * INPUTS.nbytes) * STEPS
    for moved, left in ((copied + 1, 1), (copied, 0)):
        module = passes.parse(jax.jit(_scan).lower(KERNEL, INPUTS).as_text())
        passes.run_pipeline(module, [passes.parse_pass(f"unroll-loops:operations=1000,moved={moved}")])
        assert passes.to_text(module).count("stablehlo.while(") == left, moved
