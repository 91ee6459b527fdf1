"""The optimizers that look into the model: the layers they find, their backward passes, and dense float64 algebra."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew_compiled import UsageError, compile_training
from sonew_compiled.backward import loss_and_signals
from sonew_compiled.bench._jax import JaxTraining
from sonew_compiled.bench._update import CompiledUpdate
from sonew_compiled.models import Model, classifier
from sonew_compiled.optimizer import kbfgs, kfac, locoprop, natural_gradient, optimizer_factory
from sonew_compiled.optimizer._kbfgs import bfgs, double_damped
from sonew_compiled.optimizer._tapped import layers_of, tapped_backward
from sonew_compiled.passes import POLICIES
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import Device, Program, TrainingState, open_bundle
from sonew_compiled.trace import trace_training

NAMES = ("kfac", "kbfgs", "natural-gradient", "locoprop")
each_name = pytest.mark.parametrize("name", NAMES)

Params = Any
Problem = tuple[Callable[[Params, Any], jax.Array], Any, Any, float]


def spec(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


# ----- shared problems, as models of dense layers


def regression() -> Problem:
    """Least squares with a bias, curvatures from 0.01 to 1: the loss, its batch, where to start, its minimum."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(80, 5)) * np.linspace(0.1, 1, 5), jnp.float32)
    y = jnp.asarray(x @ rng.normal(size=(5, 4)) + rng.normal(size=4) + rng.normal(size=(80, 4)) / 10, jnp.float32)

    def loss(params: Params, batch: Any) -> jax.Array:
        return jnp.mean(jnp.sum((batch["x"] @ params["a"] + params["c"] - batch["y"]) ** 2, axis=-1)) / 2

    ones = np.concatenate([x, np.ones((80, 1))], axis=1)
    residual = y - ones @ np.linalg.lstsq(ones, y)[0]
    start = {"a": jnp.zeros((5, 4)), "c": jnp.zeros(4)}
    return loss, {"x": x, "y": y}, start, float((residual**2).sum(axis=1).mean() / 2)


def rosenbrock() -> Problem:
    """Two of Rosenbrock's valleys in one layer of constant input; an example is one of their four residuals."""

    def loss(params: Params, chosen: jax.Array) -> jax.Array:
        h = jnp.ones((4, 1)) @ params["x"]
        (x, y) = h[:, :2], h[:, 2:]
        residuals = jnp.concatenate([10 * (y - x**2), 1 - x], axis=1)
        return 4 * jnp.mean(jnp.sum(chosen * residuals**2, axis=1))

    return loss, jnp.eye(4), {"x": jnp.asarray([[-1.2, 0.3, 1.0, -0.5]])}, 0.0


def logistic() -> Problem:
    """A logistic regression of three classes; the minimum is by many steps of gradient descent."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(60, 6)) * np.logspace(0, -1, 6), jnp.float32)
    label = jnp.asarray(np.argmax(np.asarray(x) @ rng.normal(size=(6, 3)) + rng.normal(size=(60, 3)), axis=1))

    def loss(params: Params, batch: Any) -> jax.Array:
        scores = batch["x"] @ params["kernel"] + params["bias"]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, batch["label"]))

    batch = {"x": x, "label": label}
    start = {"kernel": jnp.zeros((6, 3)), "bias": jnp.zeros(3)}
    slope = jax.grad(lambda p: loss(p, batch))
    descend = jax.jit(
        lambda p: jax.lax.fori_loop(0, 5000, lambda _, q: jax.tree.map(lambda v, g: v - 2 * g, q, slope(q)), p)
    )
    return loss, batch, start, float(loss(descend(start), batch))


PROBLEMS = {"regression": regression, "rosenbrock": rosenbrock, "logistic": logistic}
STEPS = 500

# The peak of a learning rate that falls linearly to zero, for each problem.
RATES = {
    "kfac": (0.3, 10, 1),
    "kbfgs": (0.3, 0.01, 0.3),
    "natural-gradient": (0.3, 1, 0.1),
    "locoprop": (0.01, 0.003, 0.01),
}
# A curvature in the thousands, of which a model for classes knows nothing.
GIVEN: dict[tuple[str, str], dict[str, Any]] = {
    ("kfac", "rosenbrock"): {"eps": 100},
    ("kbfgs", "rosenbrock"): {"eps": 0.9, "b1": 0},
    ("natural-gradient", "rosenbrock"): {"eps": 1},
    # Far from the minimum a target as near as the preset's is soon reached.
    ("locoprop", "regression"): {"activation_rate": 1},
    ("locoprop", "rosenbrock"): {"b1": 0.9},
    ("locoprop", "logistic"): {"activation_rate": 1},
    ("kbfgs", "logistic"): {"eps": 0.01},
}


@functools.cache
def problem(name: str) -> Problem:
    return PROBLEMS[name]()


@pytest.mark.parametrize("on", PROBLEMS)
@each_name
def test_converges(name: str, on: str) -> None:
    loss, batch, start, least = problem(on)
    settings = optimizer_settings(name, **GIVEN.get((name, on), {}))
    make = optimizer_factory(settings, loss=loss, batch=spec(batch))
    peak = RATES[name][list(PROBLEMS).index(on)]

    @jax.jit
    def run(params: Params) -> jax.Array:
        def step(carry: Any, index: jax.Array) -> tuple[Any, None]:
            params, state = carry
            tx = make(peak * (1 - index / STEPS))
            _, signals = loss_and_signals(tx, loss, params, state, batch)
            updates, state = tx.update(signals, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, make(0.0).init(params)), jnp.arange(STEPS))
        return loss(params, batch)

    assert float(run(start)) - least < 0.02 * (float(loss(start, batch)) - least)


# ----- the layers of a model


def layer(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return jnp.tanh(x @ kernel + bias)


def loss(params: Params, batch: Any) -> jax.Array:
    """Two layers by one jitted function, one with a bias that is reshaped and one without any."""
    h = batch["x"]
    for name in ("in", "middle"):
        h = jax.jit(layer)(h, params[name]["kernel"], params[name]["bias"])
    h = h @ params["head"]["kernel"] + jnp.reshape(params["head"]["bias"], (1, -1))
    return jnp.mean(jnp.sum((h @ params["out"] - batch["y"]) ** 2, axis=-1))


SIZES = {"in": (5, 4), "middle": (4, 4), "head": (4, 3)}


def init(key: jax.Array) -> Params:
    keys = iter(jax.random.split(key, 7))
    layers = {
        name: {"kernel": jax.random.normal(next(keys), shape) / 2, "bias": jax.random.normal(next(keys), shape[1:]) / 4}
        for name, shape in SIZES.items()
    }
    return layers | {"out": jax.random.normal(next(keys), (3, 2)) / 2}


def data(step: int, examples: int = 16, dtype: Any = np.float32) -> dict[str, Any]:
    rng = np.random.default_rng(step)
    x = rng.normal(size=(examples, 5))
    y = np.tanh(x @ np.random.default_rng(7).normal(size=(5, 2)))
    return {"x": jnp.asarray(x, dtype), "y": jnp.asarray(y, dtype)}


BATCH = spec(data(0))


@pytest.fixture
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def start(seed: int = 0) -> Params:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), init(jax.random.key(seed)))


@pytest.mark.usefixtures("_float64")
def test_the_tapped_pass_gives_gradients_inputs_and_derivatives() -> None:
    params, batch = start(), data(0, dtype=np.float64)
    value, signals = tapped_backward(loss, "kfac")(params, batch, 3.0)
    expected, gradients = jax.value_and_grad(loss)(params, batch)
    assert value == expected
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 3 * b, rtol=1e-12), signals.gradients, gradients)

    def example(one: Any) -> Params:
        return jax.grad(loss)(params, jax.tree.map(lambda x: x[None], one))

    each = jax.tree.leaves(jax.vmap(example)(batch))
    layers = layers_of(loss, params, batch, "kfac")
    assert [layer.name for layer in layers] == ["head/kernel", "in/kernel", "middle/kernel", "out"]
    assert [layer.bias is None for layer in layers] == [False, False, False, True]
    for found in layers:
        a, g = signals.inputs[found.name], 16 / 3 * signals.derivatives[found.name]
        np.testing.assert_allclose(a[:, :, None] * g[:, None, :], each[found.kernel], rtol=1e-12)
        if found.bias is not None:
            np.testing.assert_allclose(g, each[found.bias], rtol=1e-12)


def test_the_tapped_pass_has_no_product_more() -> None:
    params, batch = init(jax.random.key(0)), data(0)

    def products(function: Callable[..., Any], *arguments: Any) -> int:
        # As XLA leaves them: that of the inputs of the first layer with their transposed kernel is nobody's.
        return jax.jit(function).lower(*arguments).compile().as_text().count(" dot(")

    assert products(tapped_backward(loss, "kfac"), params, batch, 1.0) == products(
        jax.value_and_grad(loss), params, batch
    )


X = jnp.ones((3, 4))
KERNEL = {"w": jnp.ones((4, 4))}
LAYER = KERNEL | {"b": jnp.ones(4)}


def scanned(p: Params, x: jax.Array) -> jax.Array:
    return jnp.mean(jax.lax.scan(lambda h, _: (h @ p["w"], None), x, length=2)[0])


REFUSED: dict[str, tuple[Callable[[Params, Any], jax.Array], Params, str]] = {
    "twice": (lambda p, x: jnp.mean(x @ p["w"] @ p["w"]), KERNEL, "params/w is used more than once"),
    "in two calls": (
        lambda p, x: jnp.mean(jax.jit(jnp.dot)(jax.jit(jnp.dot)(x, p["w"]), p["w"])),
        KERNEL,
        "params/w is used more than once",
    ),
    "of itself": (lambda p, x: jnp.mean(x) * jnp.mean(p["w"] * p["w"]), KERNEL, "params/w is used more than once"),
    "scan": (scanned, KERNEL, "params/w goes into scan"),
    "transposed": (lambda p, x: jnp.mean(x @ p["w"].T), KERNEL, "params/w goes into transpose"),
    "left": (lambda p, x: jnp.mean(p["w"] @ x.T), KERNEL, "params/w goes into dot_general, not as the kernel of"),
    "rows": (
        lambda p, x: jnp.mean(x.reshape(6, 2) @ p["w"]),
        {"w": jnp.ones((2, 4))},
        "params/w goes into dot_general, not as the kernel of",
    ),
    "scale": (lambda p, x: jnp.mean(x * p["b"] @ p["w"]), LAYER, "params/b goes into mul"),
    "bias first": (lambda p, x: jnp.mean((x + p["b"]) @ p["w"]), LAYER, "params/b goes into add, not added to"),
    "residual": (
        lambda p, x: jnp.mean((h := x @ p["w"]) + p["b"] + h),
        LAYER,
        "params/b is added to a product that is read elsewhere too",
    ),
    "unused": (lambda p, x: jnp.mean(x @ p["w"]), LAYER, "params/b has no part in the loss"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_dense_is_refused(refusal: Callable[..., str], case: str) -> None:
    loss, params, reason = REFUSED[case]
    tx = kfac(0.1, loss=loss, batch=spec(X))
    message = refusal(UsageError, lambda: tx.init(params))
    assert message.startswith(f"kfac needs a model of dense layers: {reason}")
    assert message.endswith("; give another optimizer, such as shampoo")


@pytest.mark.parametrize("name", ["kfac", "kbfgs", "locoprop"])
def test_a_convolution_is_refused(sonew: Callable[..., Any], name: str, tmp_path: Path) -> None:
    ended = sonew("compile", "--model", "classifier", "--optimizer", name, "-o", tmp_path / "bundle")
    assert (ended.code, len(ended.err.splitlines())) == (2, 2), ended.err
    assert f"{name} needs a model of dense layers: params/conv0/" in ended.err
    assert not (tmp_path / "bundle").exists()


def test_a_convolution_has_a_natural_gradient() -> None:
    tx = natural_gradient(0.1, loss=classifier.loss)
    params = jax.eval_shape(classifier.init, jax.random.key(0))
    _, signals = jax.eval_shape(tx.backward, params, classifier.batch(3), 1.0)
    assert signals.shape == (3, 20490)


def test_the_natural_gradient_of_labels_compiles(cpu: Device, tmp_path: Path) -> None:
    """The gradient of a label's score is a scatter, and that of each example one of a batch with windows."""

    def labels_loss(params: Any, batch: Any) -> jax.Array:
        scores = batch["x"] @ params["kernel"] + params["bias"]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, batch["label"]))

    batch = {"x": jax.ShapeDtypeStruct((12, 5), jnp.float32), "label": jax.ShapeDtypeStruct((12,), jnp.int32)}
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(12, 5)).astype(np.float32), "label": rng.integers(0, 4, 12, np.int32)}
    start = {"kernel": jnp.zeros((5, 4)), "bias": jnp.zeros(4)}
    settings = optimizer_settings("natural-gradient")
    compile_training(labels_loss, lambda key: start, settings, batch, output=tmp_path / "bundle")
    state = TrainingState.initial(Program.load(open_bundle(tmp_path / "bundle"), cpu), seed=0)
    rate, upload = np.array(0.5, np.float32), state.program.upload_batch
    losses = [state.step(upload(data), state.program.device.upload(rate)) for _ in range(8)]

    def direction(params: Any) -> Any:
        flat, unravel = jax.flatten_util.ravel_pytree(params)

        def of_one(x: jax.Array, label: jax.Array) -> jax.Array:
            one = {"x": x[None], "label": label[None]}
            return jax.grad(lambda flat: labels_loss(unravel(flat), one))(flat)

        J = np.asarray(jax.vmap(of_one)(data["x"], data["label"]), np.float64)
        fisher = J.T @ J / len(J) + settings.eps * np.eye(J.shape[1])
        return unravel(jnp.asarray(np.linalg.solve(fisher, J.mean(0)), jnp.float32))

    expected, params = [], start
    for _ in range(8):
        expected.append(float(labels_loss(params, data)))
        params = jax.tree.map(lambda p, u: p - 0.5 * u, params, direction(params))
    np.testing.assert_allclose(losses, expected, rtol=1e-3)
    assert losses[-1] < losses[0] / 2


@each_name
def test_the_model_must_be_given(refusal: Callable[..., str], name: str) -> None:
    message = refusal(UsageError, lambda: optimizer_factory(optimizer_settings(name)))
    assert message.startswith(f"{name} looks into the model; give optimizer_factory")


# ----- float64 oracles


def joined(tree: Any) -> dict[str, np.ndarray]:
    """The matrices of the layers, the bias for a last row."""
    matrices = {f"{name}/kernel": np.vstack([tree[name]["kernel"], tree[name]["bias"]]) for name in SIZES}
    return matrices | {"out": np.asarray(tree["out"])}


def with_ones(name: str, inputs: Any) -> np.ndarray:
    a = np.asarray(inputs)
    return a if name == "out" else np.hstack([a, np.ones((len(a), 1))])


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize(("interval", "eps"), [(1, 1e-3), (2, 1e-3), (2, 10.0)])
def test_kfac_against_the_dense_kronecker_inverse(interval: int, eps: float) -> None:
    b1, b2 = 0.8, 0.9
    tx = kfac(0.1, loss=loss, batch=BATCH, b1=b1, b2=b2, eps=eps, precond_interval=interval)
    params = start()
    state, update = tx.init(params), jax.jit(tx.update)
    mean = {name: np.zeros_like(w) for name, w in joined(params).items()}
    factors = {name: (np.zeros((len(w),) * 2), np.zeros((w.shape[1],) * 2)) for name, w in mean.items()}
    dense: dict[str, np.ndarray] = {}
    lengths = []
    for t in range(4):
        _, signals = tx.backward(params, data(t, dtype=np.float64), 1.0)
        updates, state = update(signals, state, params)
        moved = joined(updates)
        wanted = {}
        for name, gradient in joined(signals.gradients).items():
            a, g = with_ones(name, signals.inputs[name]), 16 * np.asarray(signals.derivatives[name])
            left, right = factors[name]
            left, right = b2 * left + (1 - b2) * a.T @ a / 16, b2 * right + (1 - b2) * g.T @ g / 16
            factors[name] = left, right
            mean[name] = b1 * mean[name] + (1 - b1) * gradient
            if t % interval == 0:
                left, right = left / (1 - b2 ** (t + 1)), right / (1 - b2 ** (t + 1))
                pi = np.sqrt(np.trace(left) / len(left) / (np.trace(right) / len(right)))
                left = left + pi * np.sqrt(eps) * np.eye(len(left))
                right = right + np.sqrt(eps) / pi * np.eye(len(right))
                dense[name] = np.linalg.inv(np.kron(left, right))
                for kept, damped in zip(state[0].inverses[name], (left, right), strict=True):
                    np.testing.assert_allclose(kept, np.linalg.inv(damped), rtol=1e-8, atol=1e-9)
            wanted[name] = dense[name] @ mean[name].reshape(-1) / (1 - b1 ** (t + 1))
        square = sum(step @ mean[name].reshape(-1) / (1 - b1 ** (t + 1)) for name, step in wanted.items())
        lengths.append(np.sqrt(square))
        for name, step in wanted.items():
            limited = step / max(1, lengths[-1])
            np.testing.assert_allclose(moved[name].reshape(-1), -0.1 * limited, rtol=1e-7, atol=1e-12)
        params = optax.apply_updates(params, updates)
    # Where the damping is strong, no step is as long as the limit.
    assert min(lengths) > 1 if eps < 1 else max(lengths) < 1, lengths


def test_kfac_pays_for_inverses_in_a_branch() -> None:
    tx = kfac(0.1, loss=loss, batch=BATCH, precond_interval=3)
    params = init(jax.random.key(0))
    state, update, kept = tx.init(params), jax.jit(tx.update), []
    for t in range(7):
        _, signals = tx.backward(params, data(t), 1.0)
        names = [equation.primitive.name for equation in jax.make_jaxpr(tx.update)(signals, state, params).jaxpr.eqns]
        assert "cond" in names
        assert not {"while", "scan"} & set(names)
        _, state = update(signals, state, params)
        kept.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(state[0].inverses)]))
    changed = [not np.array_equal(a, b) for a, b in itertools.pairwise(kept)]
    assert changed == [False, False, True, False, False, True]


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("examples", [7, 90])
def test_the_natural_gradient_against_a_dense_solve(examples: int) -> None:
    def loss(params: Params, x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.sin(x[:, 0] * params["a"]) ** 2 + jnp.exp(x @ params["b"]))

    params = {"a": jnp.asarray(0.7), "b": jnp.asarray(np.linspace(-1, 1, 20))}
    x = jnp.asarray(np.random.default_rng(0).normal(size=(examples, 20)))
    tx = natural_gradient(0.1, loss=loss, eps=1e-3)
    value, signals = tx.backward(params, x, 1.0)
    assert value == pytest.approx(float(loss(params, x)), rel=1e-12)
    updates, _ = jax.jit(tx.update)(signals, tx.init(params), params)
    one = jax.vmap(lambda row: jax.grad(loss)(params, row[None]))(x)
    jacobian = np.hstack([one["a"][:, None], one["b"]])
    wanted = np.linalg.solve(jacobian.T @ jacobian / examples + 1e-3 * np.eye(21), jacobian.mean(axis=0))
    np.testing.assert_allclose([updates["a"], *updates["b"]], -0.1 * wanted, rtol=1e-6)


def test_a_direction_that_cannot_be_solved_for_is_no_step() -> None:
    tx = natural_gradient(0.1, loss=loss)
    params = init(jax.random.key(0))
    _, signals = tx.backward(params, data(0), 1.0)
    updates, _ = tx.update(signals.at[0, 0].set(jnp.nan), tx.init(params), params)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(updates))


def formula(h: np.ndarray, s: np.ndarray, y: np.ndarray) -> np.ndarray:
    rho, identity = 1 / (s @ y), np.eye(len(s))
    return (identity - rho * np.outer(s, y)) @ h @ (identity - rho * np.outer(y, s)) + rho * np.outer(s, s)


def damped_pair(h: np.ndarray, s: np.ndarray, y: np.ndarray, mu: float) -> tuple[np.ndarray, np.ndarray]:
    whole = y @ h @ y
    if s @ y < 0.2 * whole:
        theta = 0.8 * whole / (whole - s @ y)
        s = theta * s + (1 - theta) * h @ y
    if s @ y < mu * (s @ s):
        theta = (1 - mu) * (s @ s) / (s @ s - s @ y)
        y = theta * y + (1 - theta) * s
    return s, y


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("seed", range(6))
def test_bfgs_of_damped_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    h = np.eye(5)
    for _ in range(20):
        s, y = rng.normal(size=(2, 5)) * rng.uniform(0.01, 10, size=(2, 1))
        safe, turned = map(np.asarray, double_damped(jnp.asarray(h), jnp.asarray(s), jnp.asarray(y), jnp.asarray(0.3)))
        np.testing.assert_allclose((safe, turned), damped_pair(h, s, y, 0.3), rtol=1e-9, atol=1e-12)
        assert safe @ turned >= 0.3 * (safe @ safe) * (1 - 1e-9)
        updated = np.asarray(bfgs(jnp.asarray(h), jnp.asarray(safe), jnp.asarray(turned)))
        np.testing.assert_allclose(updated, formula(h, safe, turned), rtol=1e-7, atol=1e-9 * np.abs(updated).max())
        np.testing.assert_allclose(updated @ turned, safe, rtol=1e-7, atol=1e-9)
        assert np.linalg.eigvalsh(updated).min() > 0
        h = updated
    np.testing.assert_array_equal(bfgs(jnp.asarray(h), jnp.zeros(5), jnp.zeros(5)), h)


def test_bfgs_of_a_tiny_pair_is_finite() -> None:
    tiny = jnp.full(4, 1e-10, jnp.float32)
    np.testing.assert_allclose(bfgs(jnp.eye(4), tiny, tiny), np.eye(4), atol=1e-6)


@pytest.mark.usefixtures("_float64")
def test_kbfgs_against_numpy() -> None:
    b1, b2, eps, rate = 0.8, 0.7, 0.04, 0.1
    root = np.sqrt(eps)
    tx = kbfgs(rate, loss=loss, batch=BATCH, b1=b1, b2=b2, eps=eps)
    params = start()
    state, update = tx.init(params), jax.jit(tx.update)
    mean = {name: np.zeros_like(w) for name, w in joined(params).items()}
    a_of: dict[str, np.ndarray] = {}
    h_a: dict[str, np.ndarray] = {}
    h_g = {name: np.eye(w.shape[1]) for name, w in mean.items()}
    pairs = {name: np.zeros((2, w.shape[1])) for name, w in mean.items()}
    for t in range(4):
        batch = data(t, dtype=np.float64)
        _, signals = tx.backward(params, batch, 1.0)
        updates, state = update(signals, state, params)
        moved = optax.apply_updates(params, updates)
        before, (_, after) = signals.layers, tapped_backward(loss, "kbfgs")(moved, batch, 16.0)
        for name, gradient in joined(before.gradients).items():
            a, later = with_ones(name, before.inputs[name]), with_ones(name, after.inputs[name])
            a_of[name] = a.T @ a / 16 if t == 0 else b2 * a_of[name] + (1 - b2) * a.T @ a / 16
            damped = a_of[name] + root * np.eye(len(a_of[name]))
            if t == 0:
                h_a[name] = np.linalg.inv(damped)
            mean[name] = b1 * mean[name] + (1 - b1) * gradient
            step = h_a[name] @ mean[name] / (1 - b1 ** (t + 1)) @ h_g[name]
            np.testing.assert_allclose(joined(updates)[name], -rate * step, rtol=1e-6, atol=1e-10)
            s = (later @ joined(moved)[name] - a @ joined(params)[name]).mean(axis=0)
            y = (np.asarray(after.derivatives[name]) - 16 * np.asarray(before.derivatives[name])).mean(axis=0)
            pairs[name] = b1 * pairs[name] + (1 - b1) * np.stack([s, y])
            h_g[name] = formula(h_g[name], *damped_pair(h_g[name], *pairs[name], root))
            along = h_a[name] @ a.mean(axis=0)
            h_a[name] = formula(h_a[name], along, damped @ along)
            kept = state.layers[name]
            np.testing.assert_allclose(kept.inverse_g, h_g[name], rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(kept.inverse_a, h_a[name], rtol=1e-6, atol=1e-9)
            assert np.linalg.eigvalsh(kept.inverse_g).min() > 0
            assert np.linalg.eigvalsh(kept.inverse_a).min() > 0
        params = moved


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("examples", [2, 16])
def test_locoprop_against_residuals(examples: int) -> None:
    """The gradient of the local loss is that of its residuals, whichever way it is computed."""
    b1, b2, eps, rate, gamma, count = 0.8, 0.9, 1e-3, 0.02, 0.3, 5
    batch = spec(data(0, examples))
    tx = locoprop(rate, loss=loss, batch=batch, b1=b1, b2=b2, eps=eps, local_steps=count, activation_rate=gamma)
    params = start()
    state, update = tx.init(params), jax.jit(tx.update)
    m = {name: np.zeros_like(w) for name, w in joined(params).items()}
    v = {name: np.zeros_like(w) for name, w in joined(params).items()}
    for t in range(3):
        fields = data(t, examples, np.float64)
        _, signals = tx.backward(params, fields, 1.0)
        _, layers = tapped_backward(loss, "locoprop")(params, fields, 1.0)
        updates, state = update(signals, state, params)
        for name, w in joined(params).items():
            a, g = with_ones(name, layers.inputs[name]), examples * np.asarray(layers.derivatives[name])
            target, new = a @ w - gamma * g, w.copy()
            for k in range(count):
                local = a.T @ (a @ new - target) / examples
                v[name] = b2 * v[name] + (1 - b2) * local**2
                m[name] = b1 * m[name] + rate * max(1 - k / count, 0.25) * local / (np.sqrt(v[name]) + eps)
                new -= m[name]
            np.testing.assert_allclose(joined(updates)[name], new - w, rtol=1e-5, atol=1e-8)
        params = optax.apply_updates(params, updates)


# ----- through the compiler, a smaller model


def small_init(key: jax.Array) -> Params:
    kernel, out = jax.random.split(key)
    return {
        "kernel": jax.random.normal(kernel, (5, 4)) / 2,
        "bias": jnp.zeros(4),
        "out": jax.random.normal(out, (4, 2)) / 2,
    }


def small_loss(params: Params, batch: Any) -> jax.Array:
    hidden = layer(batch["x"], params["kernel"], params["bias"])
    return jnp.mean(jnp.sum((hidden @ params["out"] - batch["y"]) ** 2, axis=-1))


def test_both_passes_of_kbfgs_are_one_function() -> None:
    """So that a precision policy rounds in both what it rounds in one."""
    make = optimizer_factory(optimizer_settings("kbfgs"), loss=loss, batch=BATCH)
    text = trace_training(init=init, loss=loss, optimizer=make, batch=BATCH)
    step = text[text.index("module @train_step") : text.index("module @eval_step")]
    assert len(re.findall(r"func\.func private @layers_backward\w*\(", step)) == 1
    assert len(re.findall(r"call @layers_backward\(", step)) == 2


@pytest.mark.parametrize("precision", [name for name in POLICIES if name not in ("f32", "bf16")])
def test_kfac_under_every_policy(cpu: Device, precision: str, tmp_path: Path) -> None:
    """Those in f32 and bf16 are in tests/test_optimizers.py."""
    settings = optimizer_settings("kfac", eps=0.1, precond_interval=4)
    compile_training(small_loss, small_init, settings, BATCH, output=tmp_path / "bundle", precision=precision)
    state = TrainingState.initial(Program.load(open_bundle(tmp_path / "bundle"), cpu), seed=0)
    params = small_init(jax.random.key(0, impl="threefry2x32"))
    rate = cpu.upload(np.array(0.05, np.float32))
    fields = [{key: np.asarray(value) for key, value in data(t).items()} for t in range(30)]
    found = [state.step(state.program.upload_batch(batch), rate) for batch in fields]

    tx = optimizer_factory(settings, loss=small_loss, batch=BATCH)(0.05)
    inner = tx.init(params)

    @jax.jit
    def step(params: Params, inner: Any, batch: Any) -> tuple[Params, Any, jax.Array]:
        value, signals = loss_and_signals(tx, small_loss, params, inner, batch)
        updates, inner = tx.update(signals, inner, params)
        return optax.apply_updates(params, updates), inner, value

    wanted = []
    for batch in fields:
        params, inner, value = step(params, inner, batch)
        wanted.append(float(value))
    np.testing.assert_allclose(found, wanted, rtol=0.01 if precision.endswith("mixed") else 0.15)
    assert np.mean(wanted[-5:]) < 0.7 * np.mean(wanted[:5])


def test_an_update_alone_takes_what_the_backward_pass_gives(cpu: Device) -> None:
    loss, batch, start, _ = problem("logistic")
    settings = optimizer_settings("kbfgs")
    update = CompiledUpdate(lambda key: start, settings, cpu, loss=loss, batch=spec(batch))
    update()
    update._scratch.cleanup()
    floats = sum(p.size for p in jax.tree.leaves(start))
    statistics = 2 * 7 * 7 + 3 * 3 + 3 + 3
    signals = floats + 60 * 6 + 60 * 3 + batch["x"].size + batch["label"].size
    assert update.bytes == 4 * (signals + 2 * floats + 2 * (1 + floats + statistics))


@each_name
def test_it_trains_under_jit(name: str) -> None:
    """What `--vs jax` compares the compiled step with."""
    model = Model(init=small_init, loss=small_loss, batch=lambda size: spec(data(0, size)))

    def losses(training: JaxTraining) -> list[float]:
        state, found = training.init(0), []
        for t in range(6):
            state, value = training.step(state, data(t), 0.01)
            found.append(float(value))
        return found

    mixed = losses(JaxTraining(model, optimizer_settings(name), precision="bf16-mixed"))
    assert mixed == pytest.approx(losses(JaxTraining(model, optimizer_settings(name))), rel=0.05)
