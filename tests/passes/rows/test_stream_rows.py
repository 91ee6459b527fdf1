"""`stream-rows` on random functions against JAX, and on the updates of SONew, for whose shifts it exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jaxlib.mlir import ir
from plugins.compiler import run_module

from sonew_compiled import passes
from sonew_compiled.compile import compile_training
from sonew_compiled.lowering.lower import adapt
from sonew_compiled.lowering.targets import pin_host, resolve_target, resolve_targets
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.optimizer._chain import Chain
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.trace import trace_update

SHAPE = (200, 96)


def operations(module: ir.Module, name: str) -> list[ir.Operation]:
    return [op for op in operations_in(module.operation) if op.name == name]


def streamed(function: Callable[..., Any], *arguments: np.ndarray, options: str = "elements=1") -> ir.Module:
    """The function's module after the pass."""
    lowered = jax.jit(function, keep_unused=True).lower(*arguments)
    module = passes.parse(str(lowered.compiler_ir("stablehlo")))  # parsed anew, since JAX caches its own module
    passes.run_pipeline(module, [passes.parse_pass(f"stream-rows:{options}")])
    return module


# There is no shrinking, which would compile for many minutes.
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_random_programs_compute_what_they_did(data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(12, 80)), data.draw(st.sampled_from([1, 2, 16, 37, 48, 300]))
    chain = Chain(rows=rows, cols=cols)
    steps = data.draw(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 99), st.integers(0, 99)), min_size=2, max_size=12)
    )
    shifts = data.draw(st.lists(st.sampled_from([-2, -1, 1, 1, 2, 3]), min_size=12, max_size=12))
    recompute = data.draw(st.sampled_from([0, 3, 48]))
    lanes = data.draw(st.sampled_from([4, 8, 16]))
    bypass = data.draw(st.sampled_from([0, 1]))

    def program(x: jax.Array, packed: jax.Array, scale: jax.Array) -> list[jax.Array]:
        y = packed[7:-5].reshape(x.shape)  # as a gradient in a bucket
        values = [x, y, jnp.broadcast_to(scale, x.shape)]
        for (kind, first, second), shift in zip(steps, shifts, strict=False):
            a, b = values[first % len(values)], values[second % len(values)]
            values.append(
                [
                    lambda a, b, k: chain.shift(a, k, fill=0.5),
                    lambda a, b, k: a + scale * b,
                    lambda a, b, k: jnp.where(a > b, a, 0.5 * b),
                    lambda a, b, k: jnp.clip(a * b, -1, 1) - chain.shift(b, k),
                    lambda a, b, k: jnp.where(chain.shift(a > 0, k, fill=True), a, b / (1 + b * b)),
                ][kind](a, b, shift)
            )
        reduced = [jnp.sum(values[-1], axis=1), jnp.max(values[-2] + values[-1]), jnp.sum(values[-1] * values[-1])]
        return [*values[-2:], values[len(values) // 2], *reduced, values[-1] / (1 + reduced[-1])]

    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, cols)).astype(np.float32)
    y = rng.normal(size=7 + rows * cols + 5).astype(np.float32)
    scale = np.array(0.3, np.float32)
    options = f"elements=1,recompute={recompute},lanes={lanes},bypass={bypass}"
    module = streamed(program, x, y, scale, options=options)
    results = run_module(module, "main", [x, y, scale])
    for result, expected in zip(results, program(jnp.asarray(x), jnp.asarray(y), jnp.asarray(scale)), strict=True):
        # Sums of up to 24,000 numbers, taken in another order.
        np.testing.assert_allclose(result, expected, rtol=1e-4 if expected.ndim < 2 else 1e-5, atol=1e-5)


def dear(x: jax.Array) -> jax.Array:
    """An expensive value: forty operations."""
    for _ in range(10):
        x = jnp.sqrt(x * x + 1) * 0.9
    return x


@pytest.mark.parametrize(("recompute", "rings"), [(200, 0), (20, 1)])
def test_what_is_dear_and_read_at_several_shifts_is_kept_in_a_ring(recompute: int, rings: int) -> None:
    chain = Chain(rows=64, cols=50)
    x = np.random.default_rng(0).normal(size=(64, 50)).astype(np.float32)

    def program(x: jax.Array) -> jax.Array:
        y = dear(x)
        return y + chain.shift(y, 1) + chain.shift(y, -2)

    module = streamed(program, x, options=f"elements=1,recompute={recompute}")
    assert len(operations(module, "memref.alloca")) == rings
    np.testing.assert_allclose(run_module(module, "main", [x])[0], program(jnp.asarray(x)), rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_the_rare_side_of_a_choice_is_computed_where_it_is_chosen(share: float) -> None:
    """A line buffer ahead is computed from the usual side; the other side is in a branch."""
    chain = Chain(rows=64, cols=50)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 50)).astype(np.float32)
    x[rng.random(x.shape) < share] = -30

    def program(x: jax.Array) -> jax.Array:
        usual = dear(x)
        bad = usual < dear(0.5 * x) - 1e9 * jnp.minimum(x + 20, 0)
        near = bad | chain.shift(bad, 1, fill=False)
        return jnp.where(near, dear(chain.shift(x, 1) - x), usual)

    module = streamed(program, x, options="elements=1,recompute=20")
    assert any(
        "vector.reduction" in op.name and "or" in str(op.attributes["kind"]) for op in operations_in(module.operation)
    )
    np.testing.assert_allclose(run_module(module, "main", [x])[0], program(jnp.asarray(x)), rtol=1e-5)


@pytest.mark.parametrize("bad", [1.0, np.inf, np.nan, -np.nan])
def test_the_largest_of_what_has_no_sign_is_found_by_its_bits(bad: float) -> None:
    chain = Chain(rows=64, cols=50)
    x, y = np.random.default_rng(0).normal(size=(2, 64, 50)).astype(np.float32)
    x[20, 30] = bad

    def program(x: jax.Array, y: jax.Array) -> jax.Array:
        edge = jnp.abs(y)
        return jnp.max(jnp.abs(x) + jnp.maximum(edge, chain.shift(edge, -1)))

    module = streamed(program, x, y)
    assert operations(module, "arith.maxsi")
    assert not operations(module, "arith.maximumf")
    np.testing.assert_array_equal(run_module(module, "main", [x, y])[0], program(jnp.asarray(x), jnp.asarray(y)))


def update(name: str, precision: str = "f32", *, stream: bool = True, matrices: Sequence[str] = "w") -> ir.Module:
    """The update of some matrices, for this processor."""
    policy = passes.precision_policy(precision)
    optimizer = optimizer_factory(optimizer_settings(name))
    zeros = {each: jnp.zeros(SHAPE) for each in matrices}
    module = passes.parse(trace_update(init=lambda key: zeros, optimizer=optimizer))
    pipeline = [each for each in passes.pipeline(policy) if each.name != "loss-scaling"]
    target = [passes.parse_pass(each) for each in pin_host(resolve_target("cpu")).passes]
    passes.run_pipeline(module, [*pipeline, *(each for each in target if stream or each.name != "stream-rows")])
    return module


@pytest.mark.parametrize("precision", ["f32", "bf16", "bf16-pure", "bf16-sr"])
@pytest.mark.parametrize("name", ["tridiag-sonew", "band-sonew"])
def test_an_update_is_a_few_loops_over_the_matrix(name: str, precision: str) -> None:
    """The loops are: momentum and statistics, with the damping if it reads only its own rows; the direction; and its
    application, unless it draws random numbers, which are left to the compiler. No kernel runs between other matrices'.
    """
    module = update(name, precision)
    # The damping reads the row before of tridiagonal SONew's edges; that of band 4 is computed apart.
    apart = name == "band-sonew"
    assert len(operations(module, "flow.dispatch")) == 2 + apart + (precision != "bf16-sr")
    assert not operations(module, "stablehlo.reduce") or precision == "bf16-sr"
    assert not [
        op for op in operations(module, "stablehlo.concatenate") if ir.ShapedType(op.results[0].type).shape == [*SHAPE]
    ]
    (step,) = (op for op in operations(module, "func.func") if str(op.attributes["sym_name"]) == '"train_step"')
    aliased = {str(each["sonew.name"]) for each in step.attributes["arg_attrs"] if "tf.aliasing_output" in each}
    assert {'"optimizer/0/mu/w"', '"optimizer/0/bands/w/0"'} <= aliased
    assert ('"optimizer/0/bands/w/1"' in aliased) == apart


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("indefinite", [False, True])
@pytest.mark.parametrize("name", ["tridiag-sonew", "band-sonew"])
def test_an_update_is_computed_as_without_the_pass(name: str, indefinite: bool, precision: str) -> None:
    """Every third column may have statistics that are no covariance, so that edges are removed."""
    rng = np.random.default_rng(0)
    values = []
    for each in passes.signatures(update(name, precision))["train_step"].inputs:
        value = 0.1 * rng.standard_normal(each.shape)
        if "/bands/" in each.name:
            value = np.abs(value) + 1 if each.name.endswith("/0") else value
            if indefinite and not each.name.endswith("/0"):
                value[:, ::3] *= 100
        values.append(np.asarray(7 if each.dtype == "int32" else value, dtype=jnp.dtype(each.dtype)))
    with_it, without = (
        run_module(update(name, precision, stream=each), "train_step", values) for each in (True, False)
    )
    assert len(with_it) > 4
    for has, had in zip(with_it, without, strict=True):
        # A number almost halfway between two 16-bit numbers may be rounded to either.
        other = ~np.isclose(has.astype(float), had.astype(float), rtol=2e-5, atol=1e-6)
        assert np.mean(other) <= (1e-3 if has.dtype == jnp.bfloat16 else 0)
        np.testing.assert_allclose(has.astype(float), had.astype(float), rtol=2**-7 if other.any() else 2e-5, atol=1e-6)


def test_what_is_computed_farther_ahead_finds_the_rings_that_it_reads() -> None:
    """`b`, two rows ahead, reads `a` one row ahead, which a later stage over the same row would compute."""
    chain = Chain(rows=40, cols=16)

    def program(x: jax.Array) -> jax.Array:
        a = dear(x)
        b = dear(chain.shift(a, -1))
        return b + chain.shift(b, 2) + a

    x = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    (result,) = run_module(streamed(program, x), "main", [x])
    np.testing.assert_allclose(result, program(jnp.asarray(x)), rtol=1e-5)


@pytest.mark.parametrize(("precision", "kernels"), [("f32", 0), ("bf16", 1), ("bf16-pure", 1)])
def test_moments_and_a_weight_of_16_bits_are_one_kernel(precision: str, kernels: int) -> None:
    module = update("adam", precision)
    assert len(operations(module, "flow.dispatch")) == kernels
    rng = np.random.default_rng(0)
    values = []
    for each in passes.signatures(update("adam", precision))["train_step"].inputs:
        value = np.abs(0.1 * rng.standard_normal(each.shape))
        values.append(np.asarray(7 if each.dtype == "int32" else value, dtype=jnp.dtype(each.dtype)))
    without = run_module(update("adam", precision, stream=False), "train_step", values)
    for has, had in zip(run_module(module, "train_step", values), without, strict=True):
        # Each of a few roundings may go to the other neighbour.
        np.testing.assert_allclose(has.astype(float), had.astype(float), rtol=2**-6 if kernels else 1e-6)


@pytest.mark.parametrize("flag", [False, True])
def test_what_a_kernel_gives_is_read_within_a_branch(flag: bool) -> None:
    def program(x: jax.Array, y: jax.Array, flag: jax.Array) -> list[jax.Array]:
        mean, square = (0.9 * x + y).astype(jnp.bfloat16), (x * x).astype(jnp.bfloat16)
        wide = mean.astype(jnp.float32)
        return [mean, square, jax.lax.cond(flag, lambda: jnp.sum(wide) + jnp.max(wide), lambda: jnp.float32(7))]

    x, y = np.random.default_rng(0).normal(size=(2, 64, 48)).astype(np.float32)
    module = streamed(program, x, y, np.array(flag))
    assert len(operations(module, "flow.dispatch")) == 1
    expected = program(jnp.asarray(x), jnp.asarray(y), jnp.asarray(flag))
    for has, had in zip(run_module(module, "main", [x, y, np.array(flag)]), expected, strict=True):
        np.testing.assert_allclose(has.astype(float), np.asarray(had).astype(float), rtol=2**-7)


def test_the_kernels_of_one_matrix_follow_each_other() -> None:
    module = update("tridiag-sonew", matrices="ab")
    dispatches = operations(module, "flow.dispatch")
    first, second = dispatches[:3], dispatches[3:]
    assert first[-1].results[0] in list(second[0].operands)


def test_many_partial_results_are_combined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workgroups that read the result do not combine them again."""
    x = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)

    def program(x: jax.Array) -> jax.Array:
        y = x + Chain(rows=200, cols=64).shift(x, 1)
        return y / jnp.sqrt(jnp.sum(y * y))

    for most, reductions in ((1, 0), (0, 1)):
        monkeypatch.setattr("sonew_compiled.passes.rows.reductions._MOST_PARTIAL", most)
        module = streamed(program, x)
        assert len(operations(module, "flow.dispatch")) == 2
        assert len(operations(module, "stablehlo.reduce")) == reductions
        np.testing.assert_allclose(run_module(module, "main", [x])[0], program(jnp.asarray(x)), rtol=1e-5)


def test_bfloat16_is_rounded_to_in_one_instruction_where_there_is_one() -> None:
    x = np.ones((40, 32), jnp.bfloat16)

    def program(x: jax.Array) -> jax.Array:
        return (x.astype(jnp.float32) + Chain(rows=40, cols=32).shift(x, 1).astype(jnp.float32)).astype(jnp.bfloat16)

    for native in (0, 1):
        module = streamed(program, x, options=f"elements=1,native_bf16={native}")
        assert bool(operations(module, "llvm.fptrunc")) == bool(native)
        assert bool(operations(module, "arith.truncf")) != bool(native)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    """The division of rows and the order of sums do not depend on the threads."""
    module = update("tridiag-sonew")
    rng = np.random.default_rng(0)
    inputs = passes.signatures(module)["train_step"].inputs
    values = [np.asarray(1 + rng.random(each.shape), dtype=each.dtype) for each in inputs]
    results = [run_module(module, "train_step", values, device) for device in ("local-sync", "local-task")]
    for one, several in zip(*results, strict=True):
        np.testing.assert_array_equal(one, several)


@pytest.mark.parametrize("precision", ["f32", "bf16", "bf16-pure", "f16-mixed"])
def test_what_a_step_makes_of_weights_first_is_no_part_of_their_update(precision: str, tmp_path: Path) -> None:
    """The products that lead to the gradients read it."""

    def loss(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
        return jnp.mean(jnp.sum(jnp.square(batch["x"] @ params["w"]), axis=-1))

    manifest = compile_training(
        loss,
        lambda key: {"w": jnp.full(SHAPE, 0.1)},
        optimizer_settings("tridiag-sonew", precision=precision),
        {"x": jax.ShapeDtypeStruct((8, SHAPE[0]), jnp.float32)},
        output=tmp_path / "bundle",
        precision=precision,
        check=False,
    )
    stablehlo = (tmp_path / "bundle" / "module.stablehlo").read_bytes()
    (target,) = resolve_targets(("cpu",))
    module = passes.from_bytes(adapt(stablehlo, target, what=manifest.model))
    assert len(operations(module, "flow.dispatch")) >= 2
