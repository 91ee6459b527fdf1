"""`peel-shifts` on random programs, against JAX, and on the updates of SONew, whose shifts it is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from sonew_compiled import passes
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.optimizer._chain import Chain
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.targets import resolve_target
from sonew_compiled.trace import trace_update

PEEL = "peel-shifts:elements=1"

# What writes the rows between the edges: `join-maps` follows on processors.
WRITERS = ("stablehlo.map", "stablehlo.reduce", "linalg.generic")


def operations(module: ir.Module, name: str) -> list[ir.Operation]:
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        found.extend([op] if op.name == name else [])
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return found


def peeled(
    function: Callable[..., Any], *arguments: np.ndarray, peel: str = PEEL
) -> tuple[ir.Module, list[np.ndarray]]:
    """The function's module after the pass, and its results by StableHLO's reference interpreter."""
    lowered = jax.jit(function, keep_unused=True).lower(*arguments)
    module = passes.parse(str(lowered.compiler_ir("stablehlo")))  # JAX keeps its own for the next who lowers this
    passes.run_pipeline(module, [passes.parse_pass(peel)])
    with module.context:
        results = stablehlo.eval_module(module, [ir.DenseElementsAttr.get(each) for each in arguments])
        return module, [np.array(list(each)).reshape(ir.ShapedType(each.type).shape) for each in results]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_programs_compute_what_they_did(data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(12, 80)), data.draw(st.sampled_from([1, 2, 3, 16]))
    chain = Chain(rows=rows, cols=cols)
    steps = data.draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 99), st.integers(0, 99)), min_size=2, max_size=12)
    )
    shifts = data.draw(st.lists(st.sampled_from([-2, -1, 1, 1, 2, 3]), min_size=12, max_size=12))
    recompute = data.draw(st.sampled_from([0, 3, 48]))

    def program(x: jax.Array, y: jax.Array, scale: jax.Array) -> list[jax.Array]:
        values = [x, y, jnp.broadcast_to(scale, x.shape)]
        for (kind, first, second), shift in zip(steps, shifts, strict=False):
            a, b = values[first % len(values)], values[second % len(values)]
            values.append(
                [
                    lambda a, b, k: chain.shift(a, k, fill=0.5),
                    lambda a, b, k: a + scale * b,
                    lambda a, b, k: jnp.where(a > b, a, 0.5 * b),
                    lambda a, b, k: jnp.clip(a * b, -1, 1) - chain.shift(b, k),
                ][kind](a, b, shift)
            )
        reduced = [jnp.sum(values[-1], axis=1), jnp.max(values[-2] + values[-1]), jnp.sum(values[-1] * values[-1])]
        return [*values[-2:], values[len(values) // 2], *reduced]

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, rows, cols)).astype(np.float32)
    scale = np.array(0.3, np.float32)
    _, results = peeled(program, x, y, scale, peel=f"{PEEL},recompute={recompute}")
    for result, expected in zip(results, program(jnp.asarray(x), jnp.asarray(y), jnp.asarray(scale)), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def sizes(module: ir.Module, name: str) -> list[int]:
    return [ir.ShapedType(op.results[0].type).shape[0] for op in operations(module, name)]


def test_a_shift_is_no_copy_any_more() -> None:
    chain = Chain(rows=20, cols=3)
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    module, _ = peeled(lambda x: jnp.tanh(x) * chain.shift(jnp.tanh(x), 1) + chain.shift(x, -1), x)
    assert sizes(module, "stablehlo.map") == [1, 18, 1]
    assert sizes(module, "stablehlo.concatenate") == [20]


def test_rows_at_both_ends_are_joined_where_an_edge_has_several() -> None:
    """The first two rows, read two back, are all before the first. Read one back, one is and one is not."""
    chain = Chain(rows=40, cols=3)
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    module, _ = peeled(lambda x: x + chain.shift(x, -2), x)
    assert sizes(module, "stablehlo.concatenate") == [40]
    module, _ = peeled(lambda x: chain.shift(x, -1) + chain.shift(x, -2), x)
    assert sizes(module, "stablehlo.concatenate") == [2, 40]


def dear(x: jax.Array) -> jax.Array:
    """Thirty operations."""
    for _ in range(10):
        x = jnp.sqrt(x * x + 1)
    return x


def test_what_is_needed_before_a_reduction_and_after_it_is_computed_once() -> None:
    chain = Chain(rows=64, cols=2)

    def program(x: jax.Array) -> jax.Array:
        y = dear(x) + chain.shift(x, 1)
        return y / jnp.sum(y * y)

    x = np.ones((64, 2), np.float32)
    once, _ = peeled(program, x, peel=f"{PEEL},recompute=30")
    twice, _ = peeled(program, x, peel=f"{PEEL},recompute=31")
    assert len(operations(once, "stablehlo.sqrt")) < len(operations(twice, "stablehlo.sqrt"))


def test_what_is_dear_is_written_out() -> None:
    chain = Chain(rows=64, cols=2)

    def program(x: jax.Array) -> jax.Array:
        y = dear(x)
        return y + chain.shift(y, 1) + chain.shift(y, -1)

    x = np.ones((64, 2), np.float32)
    assert sizes(peeled(program, x, peel=f"{PEEL},recompute=60")[0], "stablehlo.map") == [2, 60, 2]
    assert sizes(peeled(program, x, peel=f"{PEEL},recompute=59")[0], "stablehlo.map") == [2, 60, 2] * 2


@pytest.mark.parametrize("precision", ["f32", "bf16", "bf16-pure"])
@pytest.mark.parametrize("name", ["tridiag-sonew", "band-sonew"])
def test_no_shift_of_an_update_is_left(name: str, precision: str) -> None:
    """Rows 200 by 96: every concatenation of a whole tensor is of a result, or of what is written out for others."""
    policy = passes.precision_policy(precision)
    optimizer = optimizer_factory(optimizer_settings(name))
    module = passes.parse(trace_update(init=lambda key: {"w": jnp.zeros((200, 96))}, optimizer=optimizer))
    pipeline = [each for each in passes.pipeline(policy) if each.name != "loss-scaling"]
    passes.run_pipeline(module, [*pipeline, *map(passes.parse_pass, resolve_target("cpu").passes)])
    joined = operations(module, "stablehlo.concatenate")
    large = [op for op in joined if ir.ShapedType(op.results[0].type).shape == [200, 96]]
    assert large
    for op in large:
        assert any(operand.owner.name in WRITERS for operand in op.operands)
    (step,) = (op for op in operations(module, "func.func") if str(op.attributes["sym_name"]) == '"train_step"')
    aliased = [str(each["sonew.name"]) for each in step.attributes["arg_attrs"] if "tf.aliasing_output" in each]
    assert aliased == ['"optimizer/0/count"', '"params/w"']  # what no shift is read for
