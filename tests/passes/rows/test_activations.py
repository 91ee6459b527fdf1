"""`stream-rows` on activations: functions of products and biases, and roundings to bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxlib.mlir import ir
from plugins.compiler import run_module

from sonew_compiled import passes
from sonew_compiled.lowering.targets import resolve_target
from sonew_compiled.models import autoencoder
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.optimizer._chain import Chain
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.trace import trace_training

ROWS, COLUMNS = 128, 130


def module_of(program: Callable[..., object], arguments: Sequence[np.ndarray], *, options: str = "") -> ir.Module:
    """The program's module, after the pass if there are options."""
    lowered = jax.jit(program, keep_unused=True).lower(*arguments)
    module = passes.parse(str(lowered.compiler_ir("stablehlo")))  # parsed anew, since JAX caches its own module
    if options:
        passes.run_pipeline(module, [passes.parse_pass(f"stream-rows:{options}")])
    return module


def kernels(module: ir.Module) -> int:
    return sum(op.name == "flow.dispatch" for op in operations_in(module.operation))


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


FUNCTIONS = (jnp.tanh, jnp.exp, jnp.expm1, jnp.log, jnp.log1p)


def test_functions_have_the_bits_of_other_code() -> None:
    """Numbers of all exponents, of either sign, in whole vectors and in what remains of a row."""
    rng = np.random.default_rng(0)
    x = np.ldexp(random(ROWS, COLUMNS), rng.integers(-140, 120, size=(ROWS, COLUMNS))).astype(np.float32)
    x[::3] = 30 * random(len(x[::3]), COLUMNS, seed=1)
    x[0, :5] = [np.inf, -np.inf, np.nan, 0, -0.0]
    bias = random(COLUMNS, seed=2)
    bias[::2] = 0

    def program(x: jax.Array, bias: jax.Array) -> list[jax.Array]:
        return [each(x + bias) for each in FUNCTIONS]

    streamed = module_of(program, [x, bias], options="lanes=16")
    assert kernels(streamed) == 1
    results = run_module(streamed, "main", [x, bias])
    for has, had, function in zip(
        results, run_module(module_of(program, [x, bias]), "main", [x, bias]), FUNCTIONS, strict=True
    ):
        np.testing.assert_array_equal(has.view(np.uint32), had.view(np.uint32), err_msg=function.__name__)


def dense(x: jax.Array, w: jax.Array, v: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """The loss of two layers, with products of bfloat16 and sums of float32."""

    def product(left: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.dot(left.astype(jnp.bfloat16), right.astype(jnp.bfloat16), preferred_element_type=jnp.float32)

    hidden = jnp.tanh(product(x, w) + b)
    return jnp.mean(jax.nn.softplus(product(hidden, v) + c))


DENSE = [random(ROWS, COLUMNS), 0.1 * random(COLUMNS, 144), 0.1 * random(144, 160), random(144), random(160)]


@pytest.mark.parametrize(("native", "most"), [(0, 2), (1, 5)])
def test_the_layers_of_a_network_are_kernels(native: int, most: int) -> None:
    """Both layers, and with an instruction that rounds, the roundings of the input and the weights too."""

    def program(*arguments: jax.Array) -> object:
        return jax.value_and_grad(dense, argnums=(1, 2, 3, 4))(*arguments)

    module = module_of(program, DENSE, options=f"lanes=16,native_bf16={native}")
    assert kernels(module) == most
    expected = jax.tree.leaves(program(*map(jnp.asarray, DENSE)))
    results = [run_module(module, "main", DENSE, name) for name in ("local-sync", "local-task")]
    for one, several, each in zip(*results, expected, strict=True):
        np.testing.assert_array_equal(one, several)  # the order of sums does not depend on the threads
        np.testing.assert_allclose(several, each, rtol=2e-2, atol=2e-3 * float(np.abs(each).max()))


def test_a_kernel_rounds_as_a_conversion_does() -> None:
    x, bias = random(ROWS, COLUMNS), random(COLUMNS, seed=1)
    x[0, :3] = [np.inf, -np.inf, np.nan]
    # Numbers halfway between two of bfloat16, and next to the largest one.
    x.view(np.uint32)[1:9] = (x.view(np.uint32)[1:9] & 0xFFFF0000) | 0x8000
    x[9, :2] = [3.4e38, -3.4e38]

    def program(x: jax.Array, bias: jax.Array) -> jax.Array:
        return (x + 0 * bias).astype(jnp.bfloat16)

    module = module_of(program, [x, bias], options="lanes=16,native_bf16=1")
    assert kernels(module) == 1
    (result,) = run_module(module, "main", [x, bias])
    expected = np.asarray(program(jnp.asarray(x), jnp.asarray(bias)))
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(result.view(np.uint16)[numbers], expected.view(np.uint16)[numbers])


def test_a_row_that_is_shifted_moves_to_its_neighbours_columns() -> None:
    """Row -1 of a column is the last row of the column before, so that it is another element of the bias."""
    chain = Chain(rows=ROWS, cols=COLUMNS)
    x, bias = random(ROWS, COLUMNS), random(COLUMNS, seed=1)

    def program(x: jax.Array, bias: jax.Array) -> jax.Array:
        return jnp.tanh(x + bias) + chain.shift(x * bias, 1) - chain.shift(bias + x, -2)

    module = module_of(program, [x, bias], options="lanes=16")
    assert kernels(module) == 2
    (result,) = run_module(module, "main", [x, bias])
    np.testing.assert_allclose(result, program(jnp.asarray(x), jnp.asarray(bias)), rtol=1e-5, atol=1e-6)


def test_what_is_read_before_the_last_operand_is_there_is_no_kernel() -> None:
    """A kernel of both activations would have to run before the second product and after it."""
    x, w, bias = random(ROWS, COLUMNS), 0.1 * random(COLUMNS, COLUMNS), random(COLUMNS, seed=1)

    def program(x: jax.Array, w: jax.Array, bias: jax.Array) -> list[jax.Array]:
        first = jnp.tanh(x @ w + bias)
        read = first @ w
        second = jnp.tanh((x * 2) @ w + bias)
        return [first * second, read]

    module = module_of(program, [x, w, bias], options="lanes=16")
    assert kernels(module) == 0
    for has, each in zip(
        run_module(module, "main", [x, w, bias]), program(*map(jnp.asarray, (x, w, bias))), strict=True
    ):
        np.testing.assert_allclose(has, each, rtol=1e-4, atol=1e-4)


def test_an_axis_of_examples_and_one_of_places_are_rows_together() -> None:
    x, bias = random(4, 32, COLUMNS), random(COLUMNS, seed=1)

    def program(x: jax.Array, bias: jax.Array) -> jax.Array:
        return jnp.tanh(x + bias)

    module = module_of(program, [x, bias], options="lanes=16")
    assert kernels(module) == 1
    (result,) = run_module(module, "main", [x, bias])
    np.testing.assert_allclose(result, program(jnp.asarray(x), jnp.asarray(bias)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "tridiag-sonew"])
@pytest.mark.parametrize("policy", ["f32", "bf16", "bf16-pure", "bf16-mixed"])
def test_a_whole_step_has_kernels_before_and_after_its_products(optimizer: str, policy: str) -> None:
    """The kernels of activations take operands from the optimizer's, which were made before."""
    factory = optimizer_factory(optimizer_settings(optimizer))
    model = autoencoder
    text = trace_training(loss=model.loss, init=model.init, optimizer=factory, batch=model.batch(128)).text
    module = passes.parse(text)
    adapted = [passes.parse_pass(each) for each in resolve_target("cpu:znver5").passes]
    passes.run_pipeline(module, [*passes.pipeline(passes.precision_policy(policy)), *adapted])
    assert kernels(module) >= 8
