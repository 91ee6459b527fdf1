"""Random numbers in a bundle agree with JAX's for every way to make keys and every place of a draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import random

from sonew_compiled import compile_training
from sonew_compiled.errors import UsageError
from sonew_compiled.runtime import Program, TrainingState, open_bundle, open_device

Draw = Callable[[jax.Array], Any]

BATCH = {"x": jax.ShapeDtypeStruct((4, 5), jnp.float32)}

# Both of its words are known while the model is compiled, and equal.
OUTSIDE = random.key(0, impl="threefry2x32")

# Every way to make a key: from the seed's key, and from a constant, so that a compiler may fold the draw.
KEYS: dict[str, Draw] = {
    "seed": lambda key: key,
    "split": lambda key: random.split(key, 3)[2],
    "fold_in": lambda key: random.fold_in(key, 5),
    "clone": random.clone,
    "data": lambda key: random.wrap_key_data(random.key_data(key), impl="threefry2x32"),
    "constant": lambda key: random.key(7),
    "constant of the model": lambda key: OUTSIDE,
    "constant split": lambda key: random.split(random.key(7))[1],
    "constant raw": lambda key: random.PRNGKey(11),
    "constant of rbg": lambda key: random.key(3, impl="rbg"),
}

DISTRIBUTIONS: dict[str, Callable[..., Any]] = {
    "bernoulli": lambda key, shape: random.bernoulli(key, 0.3, shape),
    "categorical": lambda key, shape: random.categorical(key, jnp.log(jnp.array([0.2, 0.5, 0.3])), shape=shape),
    "cauchy": random.cauchy,
    "choice": lambda key, shape: random.choice(key, 3, shape, p=jnp.array([0.2, 0.5, 0.3])),
    "exponential": random.exponential,
    "gumbel": random.gumbel,
    "laplace": random.laplace,
    "logistic": random.logistic,
    "normal": random.normal,
    "rademacher": random.rademacher,
    "randint": lambda key, shape: random.randint(key, shape, -5, 17),
    "truncated_normal": lambda key, shape: random.truncated_normal(key, -2, 1, shape),
    "uniform": random.uniform,
}


def _start(folder: Path, init: Draw, target: str, seed: int = 3) -> dict[str, np.ndarray]:
    def loss(params: Any, batch: Any) -> jax.Array:
        return sum(jnp.sum(value) for value in params.values()) * jnp.mean(batch["x"])

    compile_training(loss, init, optax.sgd, BATCH, output=folder / "bundle", learning_rate=0.1, targets=[target])
    device = open_device("local-sync" if target == "vmvx" else "local-task")
    return dict(TrainingState.initial(Program.load(open_bundle(folder / "bundle"), device), seed=seed).download())


def _check(got: dict[str, np.ndarray], init: Draw, seed: int = 3) -> None:
    for name, want in init(random.key(seed, impl="threefry2x32")).items():
        np.testing.assert_allclose(got[f"params/{name}"], want, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_every_way_to_make_a_key_gives_jaxs_numbers(tmp_path: Path, target: str) -> None:
    def init(key: jax.Array) -> Any:
        # One number from each key, and several.
        return {
            f"{name} {shape}": random.uniform(make(key), shape) for name, make in KEYS.items() for shape in ((), (4,))
        }

    _check(_start(tmp_path, init, target), init)


def test_every_distribution_gives_jaxs_numbers(tmp_path: Path) -> None:
    def init(key: jax.Array) -> Any:
        return {
            f"{name} {shape} {keys}": jnp.asarray(draw(KEYS[keys](key), shape), jnp.float32)
            for name, draw in DISTRIBUTIONS.items()
            for shape, keys in (((), "seed"), ((5,), "constant"))
        }

    _check(_start(tmp_path, init, "cpu"), init)


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_numbers_drawn_in_a_loss_are_jaxs_forward_and_backward(tmp_path: Path, target: str) -> None:
    def init(key: jax.Array) -> Any:
        return {"w": random.normal(key, (5, 3)), "b": jnp.zeros(3), "scale": jnp.ones(())}

    def loss(params: Any, batch: Any) -> jax.Array:
        # A key made from the batch, as for dropout in a model without `rng`, and a constant key.
        key = random.fold_in(random.key(1), jnp.sum(batch["x"] > 0))
        kept = random.bernoulli(key, 0.8, (3,))
        noise = random.normal(random.key(2), (3,)) * params["scale"]
        return jnp.mean(jnp.where(kept, batch["x"] @ params["w"] + params["b"] + noise, 0.0) ** 2)

    compile_training(loss, init, optax.sgd, BATCH, output=tmp_path / "b", learning_rate=0.1, targets=[target])
    program = Program.load(open_bundle(tmp_path / "b"), open_device("local-sync" if target == "vmvx" else "local-task"))
    state = TrainingState.initial(program, seed=0)
    params = init(random.key(0, impl="threefry2x32"))
    batch = {"x": np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)}
    rate = program.device.upload(np.array(0.1, np.float32))
    for _ in range(3):
        value, gradients = jax.jit(jax.value_and_grad(loss))(params, batch)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)
        np.testing.assert_allclose(state.step(program.upload_batch(batch), rate), value, rtol=1e-5)
    for name, want in params.items():
        np.testing.assert_allclose(state.download()[f"params/{name}"], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", [random.key(0), 3], ids=["typed", "number"])
def test_a_key_in_the_state_goes_on_as_optaxs(tmp_path: Path, seed: Any) -> None:
    def init(key: jax.Array) -> Any:
        return {"w": random.normal(key, (5, 3)), "b": jnp.zeros(3)}

    def loss(params: Any, batch: Any) -> jax.Array:
        return jnp.mean((batch["x"] @ params["w"] + params["b"]) ** 2)

    def optimizer(rate: Any) -> optax.GradientTransformation:
        return optax.chain(optax.add_noise(0.01, 0.5, key=seed), optax.sgd(rate))

    compile_training(loss, init, optimizer, BATCH, output=tmp_path / "b", learning_rate=0.1)
    program = Program.load(open_bundle(tmp_path / "b"), open_device("local-task"))
    state = TrainingState.initial(program, seed=0)
    params = init(random.key(0, impl="threefry2x32"))
    tx = optimizer(0.1)
    opt_state = tx.init(params)
    batch = {"x": np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)}
    rate = program.device.upload(np.array(0.1, np.float32))
    for _ in range(3):
        updates, opt_state = tx.update(jax.grad(loss)(params, batch), opt_state, params)
        params = optax.apply_updates(params, updates)
        state.step(program.upload_batch(batch), rate)
    arrays = state.download()
    for name, want in params.items():
        np.testing.assert_allclose(arrays[f"params/{name}"], want, rtol=1e-5, atol=1e-5)
    (key,) = [value for value in arrays.values() if value.dtype == np.uint32]
    np.testing.assert_array_equal(key, random.key_data(opt_state[0].rng_key))


REFUSED: dict[str, tuple[Callable[[jax.Array], jax.Array], str]] = {
    "rng_uniform": (
        lambda x: jax.lax.rng_uniform(0.0, 1.0, (3,)),
        "it has no jax.lax.rng_uniform, whose numbers nothing defines; draw them with jax.random",
    ),
    "debug": (
        lambda x: (jax.debug.print("{}", x), x)[1],
        "it cannot call back into Python; leave out jax.debug.print, jax.pure_callback and jax.io_callback",
    ),
    "callback": (
        lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((3,), jnp.float32), x),
        "it cannot call back into Python; leave out jax.debug.print, jax.pure_callback and jax.io_callback",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_target_can_call_is_refused_with_a_remedy(tmp_path: Path, case: str) -> None:
    function, reason = REFUSED[case]
    with pytest.raises(UsageError) as caught:
        _start(tmp_path, lambda key: {"w": function(jnp.ones(3) * random.normal(key, ()))}, "cpu")
    assert str(caught.value) == f"target cpu cannot do model with sgd: {reason}; no target can"
