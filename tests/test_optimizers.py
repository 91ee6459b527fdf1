"""Every optimizer over shared problems, through the compiler and a checkpoint, and against dense float64 algebra."""

from __future__ import annotations

import dataclasses
import functools
import itertools
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
from sonew_compiled import optimizer as optimizers
from sonew_compiled.backward import gradient_point, loss_and_signals
from sonew_compiled.lower import lower
from sonew_compiled.models import load_model
from sonew_compiled.optimizer import _quantize as quantize
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.optimizer._inverse_root import inverse_root
from sonew_compiled.optimizer._jacobi import symmetric_eigen
from sonew_compiled.optimizer._orthonormal import orthonormal, power_step
from sonew_compiled.presets import OPTIMIZERS, SETTINGS, optimizer_settings, settings_of
from sonew_compiled.runtime import (
    Checkpoint,
    Device,
    Program,
    TrainingState,
    load_checkpoint,
    open_bundle,
    save_checkpoint,
)
from sonew_compiled.targets import resolve_target
from sonew_compiled.trace import trace_update

# Those that look into the model need one that is trained on a batch: tests/test_dense_optimizers.py.
OF_GRADIENTS = [name for name in OPTIMIZERS if name not in ("kfac", "kbfgs", "natural-gradient", "locoprop")]
each_of_gradients = pytest.mark.parametrize("name", OF_GRADIENTS)
# tests/test_compile.py and tests/test_precision.py have the other two, which take longest to compile.
COMPILED = [name for name in OPTIMIZERS if name not in ("tridiag-sonew", "band-sonew")]
each_compiled = pytest.mark.parametrize("name", COMPILED)


# ----- shared problems


def quadratic() -> tuple[Callable[[Any], jax.Array], Any, float]:
    """A matrix and a vector, curvatures from 0.1 to 1: the function, where to start, its minimum."""
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
    """A regularised logistic regression of three classes; the minimum is by many steps of gradient descent."""
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

# The peak of a learning rate that falls linearly to zero, for each problem.
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
    "soap": (0.03, 0.1, 0.1),
    "shampoo": (0.01, 0.03, 0.01),
    "rfdson": (0.03, 0.03, 0.03),
    "ons": (10, 100, 3),
    "full-adagrad": (3, 1, 1),
}
# The online Newton step is for convex functions: in a valley that is none, its steps must begin small.
DAMPING = {("ons", "rosenbrock"): 1e4}


@functools.cache
def problem(name: str) -> tuple[Callable[[Any], jax.Array], Any, float]:
    return PROBLEMS[name]()


@pytest.mark.parametrize("on", PROBLEMS)
@each_of_gradients
def test_converges(name: str, on: str) -> None:
    f, start, least = problem(on)
    make = optimizer_factory(optimizer_settings(name, eps=DAMPING.get((name, on))))
    peak = RATES[name][list(PROBLEMS).index(on)]

    @jax.jit
    def run(params: Any) -> jax.Array:
        def step(carry: Any, index: jax.Array) -> tuple[Any, None]:
            params, state = carry
            tx = make(peak * (1 - index / STEPS))
            updates, state = tx.update(jax.grad(f)(gradient_point(tx, params, state)), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, make(0.0).init(params)), jnp.arange(STEPS))
        return f(params)

    assert float(run(start)) - least < 0.02 * (float(f(start)) - least)


# ----- a tiny model, compiled

# So much damping, since the statistics of a few examples are singular: rounding alone would be seen in the losses.
DAMPED = {"shampoo": 1e-3, "full-adagrad": 1e-3, "kfac": 0.1, "locoprop": 1e-3}


def settings(name: str) -> Any:
    interval = 7 if "precond_interval" in settings_of(name) else None
    return optimizer_settings(name, eps=DAMPED.get(name), precond_interval=interval)


def init(key: jax.Array) -> Any:
    kernel, out = jax.random.split(key)
    return {
        "kernel": jax.random.normal(kernel, (5, 4)) / 2,
        "bias": jnp.zeros(4),
        "out": jax.random.normal(out, (4, 3)) / 2,
    }


def loss(params: Any, batch: Any) -> jax.Array:
    hidden = jnp.tanh(batch["x"] @ params["kernel"] + params["bias"])
    return jnp.mean(jnp.sum((hidden @ params["out"] - batch["y"]) ** 2, axis=-1))


BATCH = {"x": jax.ShapeDtypeStruct((16, 5), jnp.float32), "y": jax.ShapeDtypeStruct((16, 3), jnp.float32)}


def data(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    x = rng.normal(size=(16, 5)).astype(np.float32)
    y = np.tanh(x @ np.random.default_rng(7).normal(size=(5, 3)))
    return {"x": x, "y": y.astype(np.float32)}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """The model by optimizer and precision; those in float32 are compiled two at a time."""
    root = tmp_path_factory.mktemp("optimizers")

    @functools.cache
    def compiled(name: str, precision: str) -> Path:
        path = root / f"{name}-{precision}"
        compile_training(loss, init, settings(name), BATCH, output=path, precision=precision)
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
    tx = optimizer_factory(settings(name), loss=loss, batch=BATCH)(1e-2)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, signals = loss_and_signals(tx, loss, params, state, batch)
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


@pytest.mark.parametrize("name", ["ons", "kbfgs"])
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
    values = {"b1": 0.5, "b2": 0.5, "eps": 0.5, "band": 3, "precond_interval": 3, "rank": 3, "block_size": 3}
    values |= {"weight_decay": 0.5, "local_steps": 3, "activation_rate": 0.5}
    model = {"loss": lambda params, x: jnp.mean(x @ params["w"]), "batch": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
    assert values.keys() == set(SETTINGS)
    for name in OPTIMIZERS:
        for key, value in values.items():
            if key in settings_of(name):
                given = optimizer_settings(name, **{key: value})
                assert given == dataclasses.replace(optimizer_settings(name), **{key: value})
                optimizer_factory(given, **model)(0.1).init({"w": jnp.zeros((3, 2))})
            else:
                message = refusal(UsageError, functools.partial(optimizer_settings, name, **{key: value}))
                assert message.startswith(f"--{key.replace('_', '-')} {value} does not go with {name}, which takes ")


# ----- memory


@pytest.mark.parametrize("name", ["locoprop", "muon", "rfdson", "shampoo", "soap"])
def test_loops_work_in_little_memory(name: str) -> None:
    """IREE 3.13 forgets what the rounds of a loop have freed, once it takes several of its 64 MiB blocks."""
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


# ----- float64 oracles


@pytest.fixture
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def positive(n: int, seed: int, samples: int | None = None) -> np.ndarray:
    g = np.random.default_rng(seed).normal(size=(n, samples or n))
    return g @ g.T


def power(a: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(a)
    return (vectors * values**exponent) @ vectors.T


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("n", [1, 7, 30])
def test_an_inverse_root_is_that_of_the_eigendecomposition(n: int, p: int) -> None:
    a = positive(n, seed=n, samples=max(n // 2, 1))
    wanted = power(a + 1e-6 * np.linalg.norm(a) * np.eye(n), -1 / p)
    root, error = inverse_root(jnp.asarray(a), p, 1e-6)
    np.testing.assert_allclose(root, wanted, atol=1e-6 * np.abs(wanted).max())
    assert error < 1e-4
    rounded, error = inverse_root(jnp.asarray(a, jnp.float32), p, 1e-6)
    np.testing.assert_allclose(rounded, wanted, atol=0.1 * np.abs(wanted).max())
    assert error < 1e-4


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("ridge", [1e-7, 1e-5, 1e-3, 1e-1])
def test_a_root_of_any_spectrum_within_the_damping_converges(p: int, ridge: float) -> None:
    """The scales are made for the smallest eigenvalue that there can be; every larger one has to come along."""
    a = np.concatenate([[0.0], np.logspace(-8, 0, 50)])
    a /= np.linalg.norm(a)
    root, error = inverse_root(jnp.diag(jnp.asarray(a)), p, ridge)
    np.testing.assert_allclose(np.diag(root), (a + ridge) ** (-1 / p), rtol=1e-7)
    assert error < 1e-4


@pytest.mark.parametrize("size", [1e-37, 1e-30, 1e-20, 1e20, 1e30])
def test_the_damping_of_a_root_is_relative_for_every_size(size: float) -> None:
    """In float32, where the squares of the entries would be zero or infinite."""
    matrix = jnp.asarray(positive(7, seed=0), jnp.float32)
    root, error = inverse_root(size * matrix, 4, 1e-4)
    np.testing.assert_allclose(root * size**0.25, inverse_root(matrix, 4, 1e-4)[0], rtol=1e-4, atol=1e-4)
    assert error < 1e-3


def test_a_fourth_root_takes_eleven_steps() -> None:
    """Unscaled, it takes 21, and each is four products of matrices: most of Shampoo's time."""
    text = str(jax.make_jaxpr(lambda a: inverse_root(a, 4, 1e-6))(jnp.eye(3)))
    assert text.count("dot_general") == 4 * 10


@pytest.mark.parametrize("name", ["shampoo", "full-adagrad"])
def test_roots_are_computed_without_a_loop(name: str) -> None:
    """In a branch, IREE 3.13 keeps the memory of a loop's rounds: the autoencoder under Shampoo took all there was."""
    update = trace_update(init=lambda key: {"w": jnp.zeros((6, 4))}, optimizer=optimizer_factory(settings(name)))
    branch = update[update.index("stablehlo.case") :]
    assert "stablehlo.dot_general" in branch
    assert "stablehlo.while" not in update


def test_a_root_that_there_is_none_of_is_not_taken() -> None:
    _, error = inverse_root(jnp.diag(jnp.asarray([1.0, -0.1, 1.0])), 4, 1e-6)
    assert not error < 0.1
    tx = optimizers.scale_by_full_adagrad()
    state = tx.init({"w": jnp.zeros(3)})
    broken = state._replace(statistics=jnp.diag(jnp.asarray([1.0, -0.1, 1.0])))
    updates, after = tx.update({"w": 1e-3 * jnp.ones(3)}, broken)
    np.testing.assert_array_equal(after.root, state.root)
    np.testing.assert_allclose(updates["w"], 1e-3 * np.ones(3), rtol=1e-6)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("n", [1, 2, 3, 6, 9, 17])
def test_jacobi_finds_eigenvalues_and_vectors(n: int) -> None:
    a = np.stack([positive(n, seed=0), positive(n, seed=1, samples=1), np.zeros((n, n))])
    values, vectors = symmetric_eigen(jnp.asarray(a))
    np.testing.assert_allclose(np.sort(values), np.linalg.eigvalsh(a), atol=1e-10)
    np.testing.assert_allclose(vectors @ (values[..., None] * np.swapaxes(vectors, 1, 2)), a, atol=1e-10)
    np.testing.assert_allclose(np.swapaxes(vectors, 1, 2) @ vectors, np.broadcast_to(np.eye(n), a.shape), atol=1e-10)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("n", [1, 5, 32, 70])
def test_gram_schmidt_is_qr(n: int) -> None:
    a = np.random.default_rng(n).normal(size=(n, n))
    q, r = np.linalg.qr(a)
    np.testing.assert_allclose(orthonormal(jnp.asarray(a)), q * np.sign(np.diag(r)), atol=1e-9)
    # The statistics of two gradients, of which all but two columns of the product are damping.
    few = jnp.asarray(positive(n, seed=n, samples=2), jnp.float32)
    basis = jnp.eye(n, dtype=jnp.float32)
    for _ in range(5):
        basis = power_step(few, basis, 1e-6)
        np.testing.assert_allclose(basis.T @ basis, np.eye(n), atol=1e-5)


@pytest.mark.usefixtures("_float64")
def test_orthogonal_iteration_finds_the_eigenvectors() -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    a = jnp.asarray((rotation * 2.0 ** -np.arange(6)) @ rotation.T)
    basis = jax.lax.fori_loop(0, 60, lambda _, q: power_step(a, q, 1e-12), jnp.eye(6))
    np.testing.assert_allclose(np.abs(rotation.T @ basis), np.eye(6), atol=1e-6)


def gradients(shape: tuple[int, ...], count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) * (1 + np.arange(shape[-1])) for _ in range(count)]


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("block_size", [2, 3, 100])
def test_shampoo_against_dense_roots(block_size: int) -> None:
    b1, b2, eps, interval = 0.8, 0.9, 1e-4, 3
    tx = optimizers.scale_by_shampoo(b1=b1, b2=b2, eps=eps, precond_interval=interval, block_size=block_size)
    update = jax.jit(tx.update)
    state = tx.init({"w": jnp.zeros((2, 3, 4))})
    m, d = np.zeros((6, 4)), np.zeros((6, 4))
    corners = [
        (slice(i, i + block_size), slice(j, j + block_size))
        for i in range(0, 6, block_size)
        for j in range(0, 4, block_size)
    ]
    left = {i: np.zeros((m[c].shape[0],) * 2) for i, c in enumerate(corners)}
    right = {i: np.zeros((m[c].shape[1],) * 2) for i, c in enumerate(corners)}
    roots: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def root(a: np.ndarray) -> np.ndarray:
        return power(a + eps * np.linalg.norm(a) * np.eye(len(a)), -1 / 4)

    for t, g in enumerate(gradients((6, 4), 5)):
        p = np.zeros((6, 4))
        for i, corner in enumerate(corners):
            left[i] = b2 * left[i] + (1 - b2) * g[corner] @ g[corner].T
            right[i] = b2 * right[i] + (1 - b2) * g[corner].T @ g[corner]
            if t % interval == 0:
                roots[i] = root(left[i]), root(right[i])
            p[corner] = roots[i][0] @ g[corner] @ roots[i][1]
        unit = g / np.linalg.norm(g)
        d = b2 * d + (1 - b2) * unit**2
        length = np.linalg.norm(unit / np.sqrt(d / (1 - b2 ** (t + 1))))
        m = b1 * m + (1 - b1) * p * length / np.linalg.norm(p)
        updates, state = update({"w": jnp.asarray(g.reshape(2, 3, 4))}, state)
        np.testing.assert_allclose(updates["w"].reshape(6, 4), m, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("_float64")
def test_soap_against_dense_rotations() -> None:
    b1, b2, eps, interval = 0.8, 0.9, 1e-6, 2
    tx = optimizers.scale_by_soap(b1=b1, b2=b2, eps=eps, precond_interval=interval)
    update = jax.jit(tx.update)
    state = tx.init({"w": jnp.zeros((5, 3))})
    m, v, left, right = np.zeros((5, 3)), np.zeros((5, 3)), np.zeros((5, 5)), np.zeros((3, 3))
    q, r = np.eye(5), np.eye(3)

    def step(a: np.ndarray, basis: np.ndarray) -> np.ndarray:
        columns, triangle = np.linalg.qr(a / np.linalg.norm(a) @ basis + 8 * np.finfo(float).eps * basis)
        return columns * np.sign(np.diag(triangle))

    for t, g in enumerate(gradients((5, 3), 6)):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (q.T @ g @ r) ** 2
        left, right = b2 * left + (1 - b2) * g @ g.T, b2 * right + (1 - b2) * g.T @ g
        inside = (q.T @ m @ r) / (1 - b1 ** (t + 1)) / (np.sqrt(v / (1 - b2 ** (t + 1))) + eps)
        updates, state = update({"w": jnp.asarray(g)}, state)
        # Statistics of fewer gradients than rows have eigenvalues of zero, whose vectors are for rounding to choose.
        np.testing.assert_allclose(updates["w"], q @ inside @ r.T, rtol=1e-4)
        if t % interval == 0:
            q, r = step(left, q), step(right, r)
            q, r = (q, r) if t else (np.asarray(state.bases["w"][0]), r)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("b2", [1.0, 0.8])
@pytest.mark.parametrize("shape", [(4,), (3, 2), (2, 2, 2), ()])
def test_rfdson_against_the_dense_matrix(shape: tuple[int, ...], b2: float) -> None:
    size, rank, eps = int(np.prod(shape)), 3, 0.5
    weight = 1 if b2 == 1 else 1 - b2
    tx = optimizers.scale_by_rfdson(rank=rank, b2=b2, eps=eps)
    state = tx.init(jnp.zeros(shape))
    full = np.zeros((size, size))
    shrunk = 0.0
    rng = np.random.default_rng(0)
    for t in range(8):
        g = rng.normal(size=shape)
        updates, state = tx.update(jnp.asarray(g), state)
        full = b2 * full + weight * np.outer(g, g)
        sketch = np.asarray(state.sketch).reshape(rank, size)
        alpha = float(state.alpha)
        wanted = np.linalg.solve((alpha + eps) * np.eye(size) + sketch.T @ sketch, g.reshape(-1))
        np.testing.assert_allclose(np.asarray(updates).reshape(-1), wanted, rtol=1e-8)
        # What the sketch has lost is between zero and the sum of what was shrunk, half of which is in alpha.
        shrunk = 2 * alpha
        lost = np.linalg.eigvalsh(full - sketch.T @ sketch)
        assert lost.min() > -1e-9
        assert lost.max() < shrunk + 1e-9
        if t < rank or size <= rank:
            np.testing.assert_allclose(sketch.T @ sketch, full, atol=1e-9)
    assert (shrunk > 0.1 * weight) == (size > rank)


@pytest.mark.usefixtures("_float64")
def test_rfdson_takes_the_lengths_of_normalised_rmsprop() -> None:
    b1, b2, eps = 0.7, 0.9, 0.2
    tx = optimizers.rfdson(0.5, b1=b1, b2=b2, rank=6, eps=eps)
    state = tx.init({"w": jnp.zeros((3, 2))})
    full, d, m = np.zeros((6, 6)), np.zeros(6), np.zeros(6)
    for t, g in enumerate(gradients((6,), 5)):
        updates, state = tx.update({"w": jnp.asarray(g.reshape(3, 2))}, state)
        unit = g / np.linalg.norm(g)
        full, d = b2 * full + (1 - b2) * np.outer(unit, unit), b2 * d + (1 - b2) * unit**2
        u = np.linalg.solve(full + eps * np.eye(6), unit)
        m = b1 * m + (1 - b1) * u * np.linalg.norm(unit / np.sqrt(d / (1 - b2 ** (t + 1)))) / np.linalg.norm(u)
        np.testing.assert_allclose(np.ravel(updates["w"]), -0.5 * m, rtol=1e-5)


@pytest.mark.usefixtures("_float64")
def test_ons_against_the_dense_matrix() -> None:
    tx = optimizers.scale_by_ons(eps=0.5)
    state = tx.init({"a": jnp.zeros((3, 2)), "b": jnp.zeros(2)})
    full = 0.5 * np.eye(8)
    for g in gradients((8,), 20):
        updates, state = tx.update({"a": jnp.asarray(g[:6].reshape(3, 2)), "b": jnp.asarray(g[6:])}, state)
        full += np.outer(g, g)
        got = np.concatenate([np.ravel(updates["a"]), updates["b"]])
        np.testing.assert_allclose(got, np.linalg.solve(full, g), rtol=1e-9)
        np.testing.assert_allclose(state.inverse, np.linalg.inv(full), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("interval", [1, 3])
def test_full_adagrad_against_the_dense_root(interval: int) -> None:
    tx = optimizers.scale_by_full_adagrad(eps=1e-4, precond_interval=interval)
    update = jax.jit(tx.update)
    state = tx.init({"a": jnp.zeros((2, 2)), "b": jnp.zeros(2)})
    full, root = np.zeros((6, 6)), np.eye(6)
    for t, g in enumerate(gradients((6,), 7)):
        updates, state = update({"a": jnp.asarray(g[:4].reshape(2, 2)), "b": jnp.asarray(g[4:])}, state)
        full += np.outer(g, g)
        if t % interval == 0:
            root = power(full + 1e-4 * np.linalg.norm(full) * np.eye(6), -1 / 2)
        got = np.concatenate([np.ravel(updates["a"]), updates["b"]])
        np.testing.assert_allclose(got, root @ g, rtol=1e-6)


@pytest.mark.parametrize("name", ["shampoo", "soap", "full-adagrad"])
def test_steps_between_refreshes_do_not_pay_for_one(name: str) -> None:
    tx = optimizer_factory(optimizer_settings(name, precond_interval=3))(0.1)
    params = {"w": jnp.zeros((4, 3))}
    traced = jax.make_jaxpr(tx.update)(params, tx.init(params), params)
    names = [equation.primitive.name for equation in traced.jaxpr.eqns]
    assert "cond" in names
    assert not {"while", "scan"} & set(names), "the iterations are inside the branch"

    field = {"shampoo": "roots", "soap": "bases", "full-adagrad": "root"}[name]
    update = jax.jit(tx.update)
    state, kept = tx.init(params), []
    for g in gradients((4, 3), 7):
        _, state = update({"w": jnp.asarray(g, jnp.float32)}, state, params)
        kept.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(getattr(state[0], field))]))
    changed = [not np.array_equal(a, b) for a, b in itertools.pairwise(kept)]
    assert changed == [False, False, True, False, False, True]


# ----- 8 bits


@pytest.mark.parametrize("signed", [True, False])
def test_levels_grow_and_codes_find_the_nearest(signed: bool) -> None:
    count = 128 if signed else 256
    levels = np.array([quantize.level(code, signed=signed) for code in range(count)])
    assert (np.diff(levels) > 0).all()
    assert levels[1] == pytest.approx(5.5e-7 if signed else 5.5e-8)
    assert levels[-1] == pytest.approx(1, rel=1e-2)
    rng = np.random.default_rng(0)
    x = (10.0 ** rng.uniform(-9, 0, size=(60, 256))).astype(np.float32)
    x[:, 0] = 1
    x[0, 1:9] = 0
    if signed:
        x *= rng.choice([-1, 1], size=x.shape)
    q = quantize.quantize(jnp.asarray(x), signed=signed)
    back = np.asarray(quantize.dequantize(q, x.shape, signed=signed), np.float64)
    scale = 1 / levels[-1]
    nearest = scale * levels[np.abs(np.abs(x)[..., None] - scale * levels).argmin(-1)]
    if not signed:
        nearest = np.where(x > 0, np.maximum(nearest, scale * levels[1]), 0)
        assert ((back > 0) == (x > 0)).all()
    # The middle of a cell is nearest but at the border of two decades, whose cells differ in width.
    np.testing.assert_allclose(np.abs(back - x), np.abs(nearest - np.abs(x)), atol=5e-3 * np.abs(x).max())
    decades = 7 if signed else 8
    place = np.clip(np.floor(np.log10(np.maximum(np.abs(x), 1e-30) / scale)) + decades, 0, decades - 1)
    half = scale * 0.45 * 10.0 ** (place - decades + 1) / 2**place
    assert (np.abs(back - x) <= np.maximum(half, scale * levels[1]) * (1 + 1e-5)).all()
    np.testing.assert_allclose(back[:, 0], x[:, 0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (255,), (3, 100), (0,)])
def test_any_shape_is_kept_in_8_bits(shape: tuple[int, ...]) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    q = quantize.quantize(x, signed=True)
    assert jax.tree.map(jnp.shape, q) == jax.tree.map(jnp.shape, quantize.zeros(x))
    assert q.codes.dtype == jnp.uint8
    back = quantize.dequantize(q, shape, signed=True)
    assert back.shape == shape
    np.testing.assert_allclose(back, x, atol=0.01 * float(jnp.max(jnp.abs(x), initial=0)))
    np.testing.assert_array_equal(quantize.dequantize(quantize.zeros(x), shape, signed=False), np.zeros(shape))


def test_adam_8bit_stays_near_adam() -> None:
    params = {"w": jnp.zeros((40, 30))}
    ours, adam = optimizers.adam_8bit(1e-2, b2=0.99), optax.adam(1e-2, b2=0.99)
    state, reference = ours.init(params), adam.init(params)
    for g in gradients((40, 30), 30):
        update, state = ours.update({"w": jnp.asarray(g, jnp.float32)}, state)
        wanted, reference = adam.update({"w": jnp.asarray(g, jnp.float32)}, reference)
    assert np.linalg.norm(update["w"] - wanted["w"]) < 0.05 * np.linalg.norm(wanted["w"])


# ----- schedule-free


@pytest.mark.usefixtures("_float64")
def test_schedule_free_makes_the_steps_of_optax() -> None:
    options = {"b1": 0.9, "b2": 0.99, "eps": 1e-6, "weight_decay": 0.01}
    rates = [0.0, 0.05, 0.1, 0.1, 0.05, 0.02]
    f, start, _ = quadratic()
    start = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) + 1, start)

    x, state = start, optimizers.schedule_free_adamw(0.1, **options).init(start)
    y, reference = start, optax.contrib.schedule_free_adamw(0.1, **options).init(start)
    for rate in rates:
        tx = optimizers.schedule_free_adamw(rate, **options)
        updates, state = tx.update(jax.grad(f)(gradient_point(tx, x, state)), state, x)
        x = optax.apply_updates(x, updates)
        theirs = optax.contrib.schedule_free_adamw(rate, **options)
        updates, reference = theirs.update(jax.grad(f)(y), reference, y)
        y = optax.apply_updates(y, updates)
        for ours, wanted in (
            (x, optax.contrib.schedule_free_eval_params(reference, y)),
            (gradient_point(tx, x, state), y),
        ):
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), ours, wanted)


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
    # The loss that a step reports is that of the point where it takes its gradients.
    offsets = {key: arrays[f"optimizer/offset/{key}"] for key in average}
    assert max(np.abs(d).max() for d in offsets.values()) > 0.1
    point = {key: average[key] + 0.1 * offsets[key] for key in average}
    assert steps(state, range(1)) == [pytest.approx(float(loss(point, data(0))), rel=1e-5)]


@pytest.mark.parametrize("precision", ["bf16", "bf16-pure"])
def test_rfdson_compiles_where_its_direction_is_rounded(precision: str) -> None:
    """Its direction was once a matrix by a vector, for which IREE wanted a stack as large as the parameters."""
    optimizer = optimizer_factory(settings("rfdson"))
    module = passes.parse(trace_update(init=lambda key: {"w": jnp.zeros((200, 96))}, optimizer=optimizer))
    pipeline = [each for each in passes.pipeline(passes.precision_policy(precision)) if each.name != "loss-scaling"]
    target = resolve_target("cpu")
    passes.run_pipeline(module, [*pipeline, *map(passes.parse_pass, target.passes)])
    assert lower(passes.to_bytes(module), target, what="an update")
