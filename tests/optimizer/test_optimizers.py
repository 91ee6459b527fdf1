"""Every optimizer on shared problems, through the compiler and a checkpoint, and with each of its settings."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jaxlib.mlir import ir

from sonew_compiled import UsageError, compile_training, passes
from sonew_compiled.backward import gradient_point, loss_and_signals
from sonew_compiled.lowering.iree import lower_iree
from sonew_compiled.lowering.targets import resolve_target
from sonew_compiled.models import load_model
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.presets import OPTIMIZERS, RECORDS, SETTINGS, optimizer_settings, settings_of
from sonew_compiled.runtime import (
    Checkpoint,
    Device,
    Program,
    TrainingState,
    load_checkpoint,
    open_bundle,
    save_checkpoint,
)
from sonew_compiled.trace import trace_update

# tests/optimizer/test_dense_optimizers.py has those that look into the model, which need a loss of a batch.
OF_GRADIENTS = [name for name, record in RECORDS.items() if not record.needs_loss]
each_of_gradients = pytest.mark.parametrize("name", OF_GRADIENTS)
# tests/test_compile.py and tests/test_precision.py have the other two, which take the longest to compile.
COMPILED = [name for name in OPTIMIZERS if name not in ("tridiag-sonew", "band-sonew")]
each_compiled = pytest.mark.parametrize("name", COMPILED)


# ----- shared problems


def quadratic() -> tuple[Callable[[Any], jax.Array], Any, float]:
    """A matrix and a vector with curvatures from 0.1 to 1: the function, the start, the minimum."""
    rng = np.random.default_rng(0)
    target = {"a": rng.normal(size=(5, 4)), "c": rng.normal(size=(3,))}
    target = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), target)

    def f(params: Any) -> jax.Array:
        def part(x: jax.Array, y: jax.Array) -> jax.Array:
            return jnp.sum(jnp.linspace(0.1, 1, x.size).reshape(x.shape) * (x - y) ** 2) / 2

        return sum(jax.tree.leaves(jax.tree.map(part, params, target)), jnp.zeros(()))

    return f, jax.tree.map(jnp.zeros_like, target), 0.0


def rosenbrock() -> tuple[Callable[[Any], jax.Array], Any, float]:
    """Two of Rosenbrock's valleys, side by side in one matrix."""

    def f(params: Any) -> jax.Array:
        x, y = params["x"]
        return jnp.sum(100 * (y - x**2) ** 2 + (1 - x) ** 2)

    return f, {"x": jnp.asarray([[-1.2, 0.3], [1.0, -0.5]], jnp.float32)}, 0.0


def logistic() -> tuple[Callable[[Any], jax.Array], Any, float]:
    """A regularised logistic regression of three classes; many steps of gradient descent find the minimum."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(60, 6)) * np.logspace(0, -1, 6), jnp.float32)
    label = jnp.asarray(np.argmax(np.asarray(x) @ rng.normal(size=(6, 3)) + rng.normal(size=(60, 3)) / 4, axis=1))

    def f(params: Any) -> jax.Array:
        scores = x @ params["kernel"] + params["bias"]
        size = sum(jnp.sum(p**2) for p in jax.tree.leaves(params))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, label)) + 1e-2 * size

    start = {"kernel": jnp.zeros((6, 3)), "bias": jnp.zeros(3)}
    descend = jax.jit(
        lambda p: jax.lax.fori_loop(0, 5000, lambda _, q: jax.tree.map(jnp.subtract, q, jax.grad(f)(q)), p)
    )
    return f, start, float(f(descend(start)))


PROBLEMS = {"quadratic": quadratic, "rosenbrock": rosenbrock, "logistic": logistic}
STEPS = 500

# The peak, for each problem, of a learning rate that falls linearly to zero. An optimizer without a row must converge
# at one of `ANY`.
ANY = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
RATES = {
    "diag-sonew": (0.3, 0.1, 0.3),
    "tridiag-sonew": (0.1, 0.3, 0.1),
    "band-sonew": (0.1, 0.1, 0.1),
    "sgd": (3, 0.003, 3),
    "momentum": (1, 0.003, 0.1),
    "nesterov": (1, 0.003, 0.3),
    "adagrad": (3, 3, 1),
    "rmsprop": (0.1, 0.1, 0.1),
    "adam": (0.3, 1, 0.1),
    "adamw": (0.3, 1, 0.1),
    "adam-8bit": (0.3, 1, 0.1),
    "schedule-free-adamw": (1, 1, 0.3),
    "muon": (0.1, 0.1, 0.1),
    "normuon": (0.1, 0.1, 0.1),
    "soap": (0.03, 0.1, 0.1),
    "shampoo": (0.01, 0.03, 0.01),
    "caspr": (0.01, 0.03, 0.01),
    "kl-shampoo": (0.03, 0.03, 0.03),
    "psgd-kron": (0.03, 0.03, 0.03),
    "rfdson": (0.03, 0.03, 0.03),
    "ons": (10, 100, 3),
    "full-adagrad": (3, 1, 1),
}
# The online Newton step is for convex functions. In a valley that is not convex, its steps must start small.
DAMPING = {("ons", "rosenbrock"): 1e4}


@functools.cache
def problem(name: str) -> tuple[Callable[[Any], jax.Array], Any, float]:
    return PROBLEMS[name]()


@pytest.mark.parametrize("on", PROBLEMS)
@each_of_gradients
def test_converges(name: str, on: str) -> None:
    f, start, least = problem(on)
    make = optimizer_factory(optimizer_settings(name, eps=DAMPING.get((name, on))))
    peaks = (RATES[name][list(PROBLEMS).index(on)],) if name in RATES else ANY

    @jax.jit
    def run(params: Any, peak: Any) -> jax.Array:
        def step(carry: Any, index: jax.Array) -> tuple[Any, None]:
            params, state = carry
            tx = make(peak * (1 - index / STEPS))
            updates, state = tx.update(jax.grad(f)(gradient_point(tx, params, state)), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, make(0.0).init(params)), jnp.arange(STEPS))
        return f(params)

    reached = min(float(run(start, peak)) for peak in peaks)
    assert reached - least < 0.02 * (float(f(start)) - least)


# ----- a tiny model, compiled

# The statistics of a few examples are singular. With less damping, rounding alone would show in the losses.
DAMPED = {"shampoo": 1e-3, "caspr": 1e-3, "full-adagrad": 1e-3, "kfac": 0.1, "locoprop": 1e-3}


def settings(name: str) -> Any:
    interval = 7 if "precond_interval" in settings_of(name) else None
    return optimizer_settings(name, eps=DAMPED.get(name), precond_interval=interval)


def init(key: jax.Array) -> Any:
    return {"kernel": jax.random.normal(key, (5, 3)) / 2, "bias": jnp.zeros(3)}


def loss(params: Any, batch: Any) -> jax.Array:
    return jnp.mean(jnp.sum((jnp.tanh(batch["x"] @ params["kernel"] + params["bias"]) - batch["y"]) ** 2, axis=-1))


def deep_init(key: jax.Array) -> Any:
    kernel, out = jax.random.split(key)
    return {
        "kernel": jax.random.normal(kernel, (5, 4)) / 2,
        "bias": jnp.zeros(4),
        "out": jax.random.normal(out, (4, 3)) / 2,
    }


def deep_loss(params: Any, batch: Any) -> jax.Array:
    hidden = jnp.tanh(batch["x"] @ params["kernel"] + params["bias"])
    return jnp.mean(jnp.sum((hidden @ params["out"] - batch["y"]) ** 2, axis=-1))


def model_for(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The loss and `init`: one layer, which compiles in half the time, unless the optimizer looks into the model."""
    return (deep_loss, deep_init) if RECORDS[name].needs_loss else (loss, init)


BATCH = {"x": jax.ShapeDtypeStruct((16, 5), jnp.float32), "y": jax.ShapeDtypeStruct((16, 3), jnp.float32)}


def data(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    x = rng.normal(size=(16, 5)).astype(np.float32)
    y = np.tanh(x @ np.random.default_rng(7).normal(size=(5, 3)))
    return {"x": x, "y": y.astype(np.float32)}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """The bundle of an optimizer and a precision; those in float32 are compiled two at a time."""
    root = tmp_path_factory.mktemp("optimizers")

    @functools.cache
    def compiled(name: str, precision: str) -> Path:
        path = root / f"{name}-{precision}"
        compile_training(*model_for(name), settings(name), BATCH, output=path, precision=precision, check=False)
        return path

    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(compiled, name, "f32") for name in COMPILED}
        yield lambda name, precision="f32": futures[name].result() if precision == "f32" else compiled(name, precision)
        for future in futures.values():
            future.cancel()


def steps(state: TrainingState, indices: range, rate: float = 1e-2) -> list[float]:
    learning_rate = state.program.device.upload(np.array(rate, np.float32))
    return [state.step(state.program.upload_batch(data(i)), learning_rate) for i in indices]


@each_compiled
def test_the_compiled_step_is_the_jitted_one(bundles: Callable[..., Path], cpu: Device, name: str) -> None:
    state = TrainingState.initial(Program.load(open_bundle(bundles(name)), cpu), seed=0)
    params = {key.partition("/")[2]: jnp.asarray(value) for key, value in state.parameters().items()}
    model_loss, _ = model_for(name)
    tx = optimizer_factory(settings(name), loss=model_loss, batch=BATCH)(1e-2)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, signals = loss_and_signals(tx, model_loss, params, state, batch)
        updates, state = tx.update(signals, state, params)
        return optax.apply_updates(params, updates), state, value

    inner = tx.init(params)
    expected = []
    for index in range(50):
        params, inner, value = step(params, inner, data(index))
        expected.append(float(value))
    np.testing.assert_allclose(steps(state, range(50)), expected, rtol=1e-3)
    for key, value in state.parameters().items():
        np.testing.assert_allclose(value, params[key.partition("/")[2]], rtol=1e-2, atol=1e-3)


@each_compiled
def test_the_state_goes_through_a_checkpoint(
    bundles: Callable[..., Path], cpu: Device, name: str, tmp_path: Path
) -> None:
    program = Program.load(open_bundle(bundles(name)), cpu)
    state = TrainingState.initial(program, seed=0)
    steps(state, range(9))
    saved = Checkpoint(step=9, tensors=state.download(), settings={})
    loaded = load_checkpoint(save_checkpoint(tmp_path, saved, program.manifest), program.manifest)
    resumed = TrainingState.from_arrays(program, loaded.tensors)
    assert steps(resumed, range(9, 15)) == steps(state, range(9, 15))
    for key, value in state.download().items():
        assert value.tobytes() == resumed.download()[key].tobytes(), key


@pytest.mark.parametrize(
    ("name", "precision"),
    [("adam-8bit", "bf16"), ("soap", "bf16"), ("shampoo", "bf16-pure"), ("kfac", "bf16"), ("locoprop", "bf16-pure")],
)
def test_in_16_bits(bundles: Callable[..., Path], cpu: Device, name: str, precision: str) -> None:
    bundle = open_bundle(bundles(name, precision))
    dtypes = {spec.name.rpartition("/")[2]: spec.dtype for spec in bundle.manifest.state if "bias" in spec.name}
    assert dtypes == (
        {"codes": "uint8", "scales": "bfloat16", "bias": "bfloat16"} if name == "adam-8bit" else {"bias": "bfloat16"}
    )
    state = TrainingState.initial(Program.load(bundle, cpu), seed=0)
    losses = steps(state, range(50))
    reference = steps(TrainingState.initial(Program.load(open_bundle(bundles(name)), cpu), seed=0), range(50))
    assert losses[-1] == pytest.approx(reference[-1], rel=0.25)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize("name", [name for name, record in RECORDS.items() if record.needs_float32_state])
def test_what_needs_float32_is_refused_in_16_bits(refusal: Callable[..., str], tmp_path: Path, name: str) -> None:
    arguments = {"output": tmp_path / name, "precision": "bf16"}
    message = refusal(UsageError, lambda: compile_training(loss, init, optimizer_settings(name), BATCH, **arguments))
    assert "bfloat16 is too coarse" in message
    assert "--precision f32" in message


@pytest.mark.parametrize("name", ["ons", "full-adagrad", "natural-gradient"])
def test_a_full_matrix_is_refused_above_a_size(refusal: Callable[..., str], name: str) -> None:
    tx = optimizer_factory(optimizer_settings(name), loss=loss)(1.0)
    jax.eval_shape(tx.init, {"w": jnp.zeros((64, 64))})
    message = refusal(UsageError, lambda: tx.init({"w": jnp.zeros((64, 64)), "b": jnp.zeros(1)}))
    assert f"{name} keeps a matrix of 4,097 x 4,097" in message
    assert "at most 4,096 parameters" in message


# ----- settings


def test_every_setting_is_taken_or_refused(refusal: Callable[..., str]) -> None:
    declared = {setting.name: setting for record in RECORDS.values() for setting in record.settings}
    of_kind: dict[type, Any] = {int: 3, float: 0.5}
    # Of the words, the last is not the one that ships.
    values = {
        key: setting.choices[-1] if setting.choices else of_kind[setting.kind] for key, setting in declared.items()
    }
    model = {"loss": lambda params, x: jnp.mean(x @ params["w"]), "batch": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
    assert values.keys() == set(SETTINGS)
    for name in OPTIMIZERS:
        for key, value in values.items():
            if key in settings_of(name):
                given = optimizer_settings(name, **{key: value})
                assert given.values == {**optimizer_settings(name).values, key: value}
                assert given == dataclasses.replace(optimizer_settings(name), values={key: value})
                optimizer_factory(given, **model)(0.1).init({"w": jnp.zeros((3, 2))})
            else:
                message = refusal(UsageError, functools.partial(optimizer_settings, name, **{key: value}))
                assert message.startswith(f"--{key.replace('_', '-')} {value} does not go with {name}, which takes ")


# ----- in the compiler


@pytest.mark.parametrize("name", ["locoprop", "muon", "rfdson", "shampoo", "soap"])
def test_loops_work_in_little_memory(name: str) -> None:
    """IREE 3.13 does not reuse memory that a loop's rounds have freed, once that is several of its 64 MiB blocks."""
    model = load_model("autoencoder")
    settings = optimizer_settings(name)
    make = optimizer_factory(settings, loss=model.loss, batch=model.batch(1000))
    module = passes.parse(trace_update(init=model.init, optimizer=make, batch=model.batch(1000)))
    carried: list[int] = []

    def look(operation: ir.Operation) -> ir.WalkResult:
        if operation.name == "stablehlo.while":
            carried.extend(4 * math.prod(each.type.shape) for each in operation.results)
        return ir.WalkResult.ADVANCE

    (step,) = (op for op in module.body.operations if ir.StringAttr(op.attributes["sym_name"]).value == "train_step")
    step.operation.walk(look)
    assert max(carried, default=0) <= 4 << 20
    assert (max(carried, default=0) > 1 << 20) == (name == "soap")


def test_schedule_free_evaluates_the_average(bundles: Callable[..., Path], cpu: Device) -> None:
    program = Program.load(open_bundle(bundles("schedule-free-adamw")), cpu)
    state = TrainingState.initial(program, seed=0)
    steps(state, range(20), rate=0.1)
    arrays = state.download() | {f"batch/{name}": value for name, value in data(0).items()}
    function = program.manifest.functions["eval_step"]
    results = program.call("eval_step", {spec.name: cpu.upload(arrays[spec.name]) for spec in function.inputs})
    losses = cpu.download(results["losses"], "float32", (16,))
    average = {key.partition("/")[2]: value for key, value in state.parameters().items()}
    assert np.mean(losses) == pytest.approx(float(loss(average, data(0))), rel=1e-5)
    # A step returns the loss at the point of its gradients.
    offsets = {key: arrays[f"optimizer/offset/{key}"] for key in average}
    assert max(np.abs(d).max() for d in offsets.values()) > 0.1
    point = {key: average[key] + 0.1 * offsets[key] for key in average}
    assert steps(state, range(1)) == [pytest.approx(float(loss(point, data(0))), rel=1e-5)]


@pytest.mark.parametrize("precision", ["bf16", "bf16-pure"])
def test_rfdson_compiles_where_its_direction_is_rounded(precision: str) -> None:
    """For a matrix-vector product IREE would need a stack as large as the parameters."""
    optimizer = optimizer_factory(settings("rfdson"))
    module = passes.parse(trace_update(init=lambda key: {"w": jnp.zeros((200, 96))}, optimizer=optimizer))
    pipeline = [each for each in passes.pipeline(passes.precision_policy(precision)) if each.name != "loss-scaling"]
    target = resolve_target("cpu")
    passes.run_pipeline(module, [*pipeline, *map(passes.parse_pass, target.passes)])
    assert lower_iree(passes.to_bytes(module), target, what="an update")
