"""Regions and in-place operations compute the same as JAX in every one of many runs, and change no argument.

Many of IREE's faults in them are races, where one run in a hundred is wrong.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from iree import runtime as rt
from jax import lax

from sonew_compiled import passes
from sonew_compiled.compile import compile_training
from sonew_compiled.lowering.iree import lower_iree
from sonew_compiled.lowering.targets import resolve_target
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.runtime import Program, TrainingState, open_bundle, open_device

REPEAT = 300

Array = Any
Function = Callable[..., Any]

# A fused product and an unfused one differ in the last bits.
TOLERANCE = 1e-4


def _numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([*shape, seed]).normal(size=shape).astype(np.float32)


A, B = _numbers(5, 3), _numbers(5, 3, seed=1)
LARGE = _numbers(300, 200), _numbers(300, 200, seed=1)
TABLE, ROWS, WHICH = _numbers(6, 4), _numbers(3, 4), np.array([1, 3, 1], np.int32)


def _int(value: int) -> np.ndarray:
    return np.array(value, np.int32)


def _either_way(*arguments: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """The arguments followed by a 0 and by a 1, which choose the side of a branch."""
    return [(*arguments, _int(0)), (*arguments, _int(1))]


def _compiled(function: Function, arguments: Sequence[np.ndarray], target: str) -> bytes:
    """The function as `main` of an executable for the target."""
    shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in arguments]
    traced = jax.jit(function, keep_unused=True).lower(*shapes).compiler_ir("stablehlo")
    traced.operation.attributes["sym_name"] = ir.StringAttr.get("main", traced.context)
    module = passes.parse(f"module {{\n{traced}\n}}\n")
    described = resolve_target(target)
    passes.run_pipeline(module, [*passes.PIPELINE, *map(passes.parse_pass, described.passes)])
    return lower_iree(passes.to_bytes(module), described, what="a function")


def _agree(function: Function, inputs: Sequence[Sequence[np.ndarray]], target: str) -> None:
    """Asserts that the target computes the same as JAX, many times, and leaves its arguments unchanged."""
    compiled = _compiled(function, inputs[0], target)
    wanted = [[np.asarray(each) for each in jax.tree.leaves(jax.jit(function)(*each))] for each in inputs]
    for driver in ("local-task", "local-sync"):
        config = rt.Config(device=rt.get_device(driver))
        context = rt.SystemContext(config=config)
        context.add_vm_module(rt.VmModule.copy_buffer(context.instance, compiled))
        for number in range(REPEAT):
            arguments, want = inputs[number % len(inputs)], wanted[number % len(inputs)]
            buffers = [rt.asdevicearray(config.device, np.array(each, order="C")) for each in arguments]
            results = context.modules.sonew.main(*buffers)
            results = results if isinstance(results, Sequence) else [results]
            for result, expected in zip(results, want, strict=True):
                got = result.to_host()
                # NumPy's assertions take most of the time of a test; they say what is wrong where something is.
                if not np.allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE):
                    np.testing.assert_allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE, err_msg=f"run {number}")
            for buffer, argument in zip(buffers, arguments, strict=True):
                if buffer.to_host().tobytes() != argument.tobytes():
                    np.testing.assert_array_equal(buffer.to_host(), argument, err_msg=f"argument after run {number}")


# ----- branches


def _captured(a: Array, b: Array, way: Array) -> Array:
    return lax.cond(way > 0, lambda: a * 2 @ b.T @ b, lambda: b)


def _captured_and_read_later(a: Array, b: Array, way: Array) -> Array:
    y = jnp.tanh(a)
    r = lax.cond(way > 0, lambda: y, lambda: b * 2)
    return r + 1, y * 3, r @ y.T


def _twice(a: Array, b: Array, way: Array) -> Array:
    y = jnp.tanh(a)
    return lax.cond(way > 0, lambda: (y, y), lambda: (b, y + 1))


def _exchanged(a: Array, b: Array, way: Array) -> Array:
    return lax.cond(way > 0, lambda: (a, b), lambda: (b, a))


def _by_no_operation(a: Array, b: Array, way: Array) -> Array:
    y = jnp.tanh(a)
    return lax.cond(way > 0, lambda: (y * 1, b + 0, y), lambda: (y @ b.T @ y, b, a))


def _moved(a: Array, b: Array, way: Array) -> Array:
    y = jnp.tanh(a)
    return lax.cond(way > 0, lambda: (y.reshape(15), y.T, y[0:5]), lambda: ((a * 2).reshape(15), b.T, b))


def _chosen(a: Array, b: Array, way: Array) -> Array:
    y = jnp.tanh(a)
    return lax.cond(way > 0, lambda: lax.select(jnp.ones((5, 3), bool), y, b), lambda: b @ a.T @ a)


def _nested(a: Array, b: Array, way: Array) -> Array:
    y = jnp.tanh(a)
    return lax.cond(
        way > 0,
        lambda: lax.cond(a[0, 0] > 0, lambda: y, lambda: b),
        lambda: lax.cond(b[0, 0] > 0, lambda: y * 2, lambda: y),
    )


def _in_a_function(a: Array, b: Array, way: Array) -> Array:
    called = jax.jit(lambda u, v: lax.cond(way > 0, lambda: u, lambda: v))
    return called(a, b), called(jnp.tanh(b), a)


def _guarded(a: Array, b: Array, way: Array) -> Array:
    y = jnp.tanh(a) * 0.9
    return lax.cond(way > 0, lambda: (y * 0.9 + b, b - y), lambda: (y, b))


def _differentiated(a: Array, b: Array, way: Array) -> Array:
    return jax.grad(lambda a: jnp.sum(jnp.sin(lax.cond(way > 0, lambda x: x, lambda x: x * b, jnp.tanh(a)))))(a)


def _of_other_types(a: Array, n: Array, way: Array) -> Array:
    m = a > 0
    return lax.cond(way > 0, lambda: (m, n + 1), lambda: (~m, n))


BRANCHES = {
    "captured": (_captured, _either_way(A, B)),
    "captured and read later": (_captured_and_read_later, _either_way(A, B)),
    "twice": (_twice, _either_way(A, B)),
    "exchanged": (_exchanged, _either_way(A, B)),
    "by no operation": (_by_no_operation, _either_way(A, B)),
    "moved": (_moved, _either_way(A, B)),
    "chosen": (_chosen, _either_way(A, B)),
    "nested": (_nested, _either_way(A, B)),
    "in a function": (_in_a_function, _either_way(A, B)),
    "guarded": (_guarded, _either_way(*LARGE)),
    "differentiated": (_differentiated, _either_way(A, B)),
    "of other types": (_of_other_types, _either_way(A, np.arange(6, dtype=np.int32))),
}


# ----- loops


def _while(last: Array, body: Function, *first: Array) -> Array:
    return lax.while_loop(lambda s: s[0] < last, lambda s: (s[0] + 1, *body(*s[1:])), (0, *first))


def _carried_through(a: Array, b: Array, last: Array) -> Array:
    return _while(last + 3, lambda y, x: (y, x * 0.5 + y), jnp.tanh(a), b)


def _never_run(a: Array, b: Array, last: Array) -> Array:
    y = jnp.tanh(a)
    return _while(last, lambda y: (jnp.sin(y),), y), y


def _swapped(a: Array, b: Array, last: Array) -> Array:
    y = jnp.tanh(a)
    return _while(last + 3, lambda y, x: (x, y + x), y, jnp.sin(b)), y


def _begun_alike(a: Array, b: Array, last: Array) -> Array:
    y = jnp.tanh(a)
    return _while(last + 3, lambda u, v: (u * 2, v + 1), y, y), y


def _unread(a: Array, b: Array, last: Array) -> Array:
    y = jnp.tanh(a)
    return _while(last + 3, lambda u, v: (y, u), b, b * 2)


def _with_a_branch(a: Array, b: Array, way: Array) -> Array:
    y = jnp.tanh(a)
    return lax.fori_loop(0, 4, lambda k, s: lax.cond((k + way) % 2 == 0, lambda: s, lambda: s * y), b)


def _in_a_branch(a: Array, b: Array, way: Array) -> Array:
    y = jnp.tanh(a)
    return lax.cond(way > 0, lambda: lax.fori_loop(0, 3, lambda k, s: jnp.sin(s) + y, y), lambda: y)


def _scanned(a: Array, xs: Array, way: Array) -> Array:
    y = jnp.tanh(a) + way
    return lax.scan(lambda s, x: ((x, s[0], s[2]), s[1] + x), (y, a, y), xs)


def _until_it_rests(a: Array, b: Array, way: Array) -> Array:
    def step(s: Array) -> Array:
        return jnp.tanh(s @ b.T @ a * 0.1 + a)

    return lax.while_loop(
        lambda s: (jnp.abs(s[0] - s[1]).max() > 1e-3) & (s[2] < 50),
        lambda s: (step(s[0]), s[0], s[2] + 1),
        (a, a + 1.0 + way, 0),
    )


def _recomputed(a: Array, b: Array, way: Array) -> Array:
    body = jax.checkpoint(lambda s, x: (jnp.tanh(s @ b.T @ b) + x, ()))
    return jax.grad(lambda a: jnp.sum(lax.scan(body, a, jnp.stack([a, b, a * way]))[0]))(a)


def _updated(table: Array) -> Array:
    return lax.fori_loop(0, 4, lambda k, s: s.at[k].set(s[k - 1] * 2 + table[k]), table) + table


LOOPS = {
    "carried through": (_carried_through, _either_way(A, B)),
    "never run": (_never_run, [(A, B, _int(-9)), (A, B, _int(2))]),
    "swapped": (_swapped, _either_way(A, B)),
    "begun alike": (_begun_alike, _either_way(A, B)),
    "unread": (_unread, _either_way(A, B)),
    "with a branch": (_with_a_branch, _either_way(A, B)),
    "in a branch": (_in_a_branch, _either_way(A, B)),
    "scanned": (_scanned, _either_way(A, _numbers(6, 5, 3))),
    "until it rests": (_until_it_rests, _either_way(A, B)),
    "recomputed": (_recomputed, _either_way(A, B)),
    "updated": (_updated, [(TABLE,)]),
}


# ----- operations in place


def _added(rows: Array, table: Array) -> Array:
    return jnp.zeros((6, 4)).at[rows].add(table)


def _scattered(which: Array, rows: Array, table: Array) -> Array:
    updated = lax.dynamic_update_slice(table, rows, (which[0], 0))
    return _added(which, rows), _added(which + 1, rows * 2), table.at[which].add(rows), updated, table * 2


def _scattered_transposed(which: Array, rows: Array, table: Array) -> Array:
    zeros = jnp.zeros((6, 4))
    return zeros.T.at[which].add(rows[0, 0]).T + zeros.T.at[which - 1].add(table[:, 0]).T


def _sorted(table: Array) -> Array:
    again = jnp.sort(jnp.sort(table, 0), 1)
    return again, jnp.argsort(table, 0), jnp.argsort(jnp.argsort(table, 1), 1), jnp.argsort(-table, 0), table


def _largest(table: Array) -> Array:
    return lax.top_k(table, 2), lax.top_k(-table, 2), jnp.median(table, 1)


def _quantiles(table: Array) -> Array:
    return jax.grad(lambda t: jnp.sum(jnp.quantile(t, 0.3, axis=1) ** 2 + jnp.median(t, 1)))(table)


def _booleans(which: Array, table: Array) -> Array:
    return (table > 0).at[which].set(True), table > 0


IN_PLACE = {
    "scattered": (_scattered, [(WHICH, ROWS, TABLE)]),
    "scattered, transposed": (_scattered_transposed, [(WHICH, ROWS, TABLE)]),
    "sorted": (_sorted, [(TABLE,)]),
    "largest": (_largest, [(TABLE,)]),
    "quantiles": (_quantiles, [(TABLE,)]),
    "booleans": (_booleans, [(WHICH, TABLE)]),
}

EVERY = {
    **{f"branch {name}": each for name, each in BRANCHES.items()},
    **{f"loop {name}": each for name, each in LOOPS.items()},
    **{f"in place {name}": each for name, each in IN_PLACE.items()},
}


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
@pytest.mark.parametrize("name", EVERY)
def test_agrees_with_jax_every_time(name: str, target: str) -> None:
    function, inputs = EVERY[name]
    _agree(function, inputs, target)


@pytest.mark.parametrize("target", ["vulkan", "cuda", "rocm", "metal"])
def test_compiles_for_devices_that_are_not_here(target: str) -> None:
    for function, inputs in (BRANCHES["by no operation"], LOOPS["unread"], IN_PLACE["sorted"]):
        assert _compiled(function, inputs[0], target)


# ----- training: what `tests/agreement/` has no row for


FIELDS = {"x": jax.ShapeDtypeStruct((8, 5), jnp.float32)}
RATE = 0.05


def _init(key: Array) -> dict[str, Array]:
    return {"w": 0.3 * jax.random.normal(key, (5, 16)), "m": 0.9 * jnp.eye(16), "o": jnp.full((16, 4), 0.1)}


def _score(params: dict[str, Array], y: Array) -> Array:
    return jnp.mean((y @ params["o"]) ** 2)


def _tied(params: dict[str, Array], batch: dict[str, Array]) -> Array:
    x = jnp.tanh(batch["x"] @ params["w"])
    return _score(params, x + lax.fori_loop(0, 4, lambda i, c: jnp.tanh(c @ params["m"]), x))


def _permuted(params: dict[str, Array], batch: dict[str, Array]) -> Array:
    x = jnp.tanh(batch["x"] @ params["w"] @ params["m"])
    return _score(params, x * jax.random.permutation(jax.random.key(3), x))


def _of_bits(params: dict[str, Array], batch: dict[str, Array]) -> Array:
    x = jnp.tanh(batch["x"] @ params["w"] @ params["m"])
    bits = lax.bitcast_convert_type(lax.stop_gradient(x), jnp.int32) & ~0xFFFF
    return _score(params, x * lax.bitcast_convert_type(bits, jnp.float32))


def _guard(rate: Array) -> optax.GradientTransformation:
    """Adam that keeps the old state if a gradient is not finite."""
    inner = optax.adam(rate)

    def update(gradients: Any, state: Any, params: Any = None) -> Any:
        fine = jnp.all(jnp.array([jnp.all(jnp.isfinite(each)) for each in jax.tree.leaves(gradients)]))
        skipped = jax.tree.map(jnp.zeros_like, gradients)
        return lax.cond(fine, lambda: inner.update(gradients, state, params), lambda: (skipped, state))

    return optax.GradientTransformation(inner.init, update)


TRAINED = {
    "of bits": (_of_bits, optax.sgd),
    "guarded": (_tied, _guard),
    "apply_if_finite": (_permuted, lambda rate: optax.apply_if_finite(optax.adam(rate), 3)),
    "every second step": (
        _tied,
        lambda rate: optax.conditionally_transform(optax.adam(rate), lambda step: step % 2 == 0),
    ),
}


@pytest.mark.parametrize("name", TRAINED)
def test_training_steps_agree_with_jax(name: str, tmp_path: Path) -> None:
    loss, make = TRAINED[name]
    compile_training(loss, _init, make, FIELDS, output=tmp_path / "bundle", targets=("cpu", "vmvx"), learning_rate=RATE)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(params, batch)
        updates, state = make(RATE).update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    program = Program.load(open_bundle(tmp_path / "bundle"), open_device("local-task"))
    rate = program.device.upload(np.array(RATE, np.float32))
    batches = [{"x": _numbers(8, 5, seed=seed)} for seed in range(5)]
    first = TrainingState.initial(program, seed=0).download()
    for _ in range(REPEAT // 20):
        params: Any = {name: first[f"params/{name}"] for name in ("w", "m", "o")}
        state, here = make(RATE).init(params), TrainingState.from_arrays(program, first)
        for batch in batches:
            params, state, value = step(params, state, batch)
            fields = program.upload_batch(batch)
            losses = program.call("eval_step", {**here.buffers, **program.upload_batch(batch, function="eval_step")})
            assert np.isfinite(
                program.download(program.manifest.functions["eval_step"].outputs[0], losses["losses"])
            ).all()
            np.testing.assert_allclose(here.step(fields, rate), value, rtol=1e-4)
        for key, expected in params.items():
            np.testing.assert_allclose(here.download()[f"params/{key}"], expected, rtol=1e-3, atol=1e-5, err_msg=key)
