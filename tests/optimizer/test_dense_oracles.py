"""The optimizers that look into the model, in float64: the signals of the tapped pass, and dense algebra."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew_compiled.optimizer import eva, kbfgs, kfac, locoprop, natural_gradient, optimizer_factory
from sonew_compiled.optimizer._kbfgs import bfgs, double_damped
from sonew_compiled.optimizer._tapped import layers_of, tapped_backward
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.trace import trace_training

Params = Any


def spec(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


# ----- the layers of a model


def layer(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return jnp.tanh(x @ kernel + bias)


def loss(params: Params, batch: Any) -> jax.Array:
    """Two layers of one jitted function, one with a reshaped bias, and one without a bias."""
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


def start(seed: int = 0) -> Params:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), init(jax.random.key(seed)))


@pytest.mark.usefixtures("float64")
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
        np.testing.assert_allclose(a[:, :, None] * g[:, None, :], each[found.weight], rtol=1e-12)
        if found.bias is not None:
            np.testing.assert_allclose(g, each[found.bias], rtol=1e-12)


def test_the_tapped_pass_has_no_product_more() -> None:
    params, batch = init(jax.random.key(0)), data(0)

    def products(function: Callable[..., Any], *arguments: Any) -> int:
        # Counted after XLA, which removes the unused derivative by the first layer's inputs.
        return jax.jit(function).lower(*arguments).compile().as_text().count(" dot(")

    assert products(tapped_backward(loss, "kfac"), params, batch, 1.0) == products(
        jax.value_and_grad(loss), params, batch
    )


def test_both_passes_of_kbfgs_are_one_function() -> None:
    """A precision policy then rounds the same in both."""
    make = optimizer_factory(optimizer_settings("kbfgs"), loss=loss, batch=BATCH)
    text = trace_training(init=init, loss=loss, optimizer=make, batch=BATCH).text
    step = text[text.index("module @train_step") : text.index("module @eval_step")]
    assert len(re.findall(r"func\.func private @layers_backward\w*\(", step)) == 1
    assert len(re.findall(r"call @layers_backward\(", step)) == 2


# ----- the formulas


def joined(tree: Any) -> dict[str, np.ndarray]:
    """The matrices of the layers, with the bias as last row."""
    matrices = {f"{name}/kernel": np.vstack([tree[name]["kernel"], tree[name]["bias"]]) for name in SIZES}
    return matrices | {"out": np.asarray(tree["out"])}


def with_ones(name: str, inputs: Any) -> np.ndarray:
    a = np.asarray(inputs)
    return a if name == "out" else np.hstack([a, np.ones((len(a), 1))])


@pytest.mark.usefixtures("float64")
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
    # With strong damping no step reaches the limit.
    assert min(lengths) > 1 if eps < 1 else max(lengths) < 1, lengths


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("eps", [0.03, 10.0])
def test_eva_against_a_dense_solve(eps: float) -> None:
    b1, b2 = 0.8, 0.3
    tx = eva(0.1, loss=loss, batch=BATCH, b1=b1, b2=b2, eps=eps)
    params = start()
    state, update = tx.init(params), jax.jit(tx.update)
    mean = {name: np.zeros_like(w) for name, w in joined(params).items()}
    vectors: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    lengths = []
    for t in range(4):
        _, signals = tx.backward(params, data(t, dtype=np.float64), 1.0)
        updates, state = update(signals, state, params)
        solved, square = {}, 0.0
        for name, gradient in joined(signals.gradients).items():
            a = with_ones(name, signals.inputs[name]).mean(axis=0)
            g = 16 * np.asarray(signals.derivatives[name]).mean(axis=0)
            if t:
                a, g = (b2 * old + (1 - b2) * new for old, new in zip(vectors[name], (a, g), strict=True))
            vectors[name] = a, g
            fisher = np.kron(np.outer(a, a), np.outer(g, g)) + eps * np.eye(gradient.size)
            solved[name] = np.linalg.solve(fisher, gradient.reshape(-1)).reshape(gradient.shape)
            square += float(np.sum(solved[name] * gradient))
        lengths.append(np.sqrt(square))
        for name, step in solved.items():
            mean[name] = b1 * mean[name] + step / max(1, lengths[-1])
            np.testing.assert_allclose(joined(updates)[name], -0.1 * mean[name], rtol=1e-7, atol=1e-12)
        params = optax.apply_updates(params, updates)
    # With strong damping no step reaches the limit.
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


@pytest.mark.usefixtures("float64")
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


@pytest.mark.usefixtures("float64")
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


@pytest.mark.usefixtures("float64")
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


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("examples", [2, 16])
def test_locoprop_against_residuals(examples: int) -> None:
    """Both ways to compute the gradient of the local loss agree with its residuals."""
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
