"""Models of flax, equinox and haiku: the library's own weights, losses and running averages, and weights given back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew_compiled import SonewError, compile_training, model_weights
from sonew_compiled.models import Model, from_equinox, from_flax, from_haiku, from_nnx
from sonew_compiled.requirements import names_of
from sonew_compiled.runtime import Device, Program, TrainingState, open_bundle, save_parameters
from sonew_compiled.trace import trace_training

nn = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")
eqx = pytest.importorskip("equinox")
hk = pytest.importorskip("haiku")

RNG = np.random.default_rng(0)
BATCH = {"x": RNG.normal(size=(8, 5)).astype(np.float32), "y": RNG.normal(size=(8, 3)).astype(np.float32)}
KEY = jax.random.key(7)


def loss(model: Any, batch: Any) -> jax.Array:
    return jnp.mean((model(batch["x"]) - batch["y"]) ** 2)


def near(model: Any, batch: Any) -> Any:
    return {"near": jnp.abs(model(batch["x"]) - batch["y"]).max(axis=1) < 1.0}


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


class Nnx(nnx.Module):
    def __init__(self, rngs: Any) -> None:
        self.first = nnx.Linear(5, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.rest = nnx.List([nnx.Linear(4, 3, rngs=rngs)])

    def __call__(self, x: Any) -> Any:
        return self.rest[0](self.dropout(self.norm(self.first(x))))


class Equinox(eqx.Module):
    first: Any
    norm: Any
    dropout: Any
    activation: Callable[[Any], Any]
    last: Any

    def __init__(self, key: Any) -> None:
        first, last = jax.random.split(key)
        self.first = eqx.nn.Linear(5, 4, key=first)
        self.norm = eqx.nn.BatchNorm(4, "batch", mode="batch")
        self.dropout = eqx.nn.Dropout(0.5)
        self.activation = jnp.tanh
        self.last = eqx.nn.Linear(4, 3, key=last)

    def __call__(self, x: Any, state: Any, key: Any) -> Any:
        x, state = self.norm(self.first(x), state)
        return self.last(self.dropout(self.activation(x), key=key)), state


def loss_of_equinox(module: Any, batch: Any, *, key: Any, state: Any) -> Any:
    keys = jax.random.split(key, len(batch["x"]))
    y, state = jax.vmap(module, axis_name="batch", in_axes=(0, None, 0), out_axes=(0, None))(batch["x"], state, keys)
    return jnp.mean((y - batch["y"]) ** 2), state


def forward(x: Any, is_training: bool) -> Any:
    x = hk.BatchNorm(True, True, 0.9)(hk.Linear(4)(x), is_training)
    return hk.Linear(3)(hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x)


class Row(NamedTuple):
    """A model, and what its library itself says: first weights, a step's loss and state, the loss in evaluation."""

    model: Model
    first: Callable[[Any], Any]
    step: Callable[[Any, Any], Any]
    evaluate: Callable[[Any], Any]


def of_linen() -> Row:
    module = Linen()

    def step(variables: Any, key: Any) -> Any:
        given = {"rngs": {"dropout": jax.random.fold_in(key, 0)}, "mutable": ["batch_stats"]}
        y, after = module.apply(variables, BATCH["x"], train=True, **given)
        return jnp.mean((y - BATCH["y"]) ** 2), {"params": variables["params"], **after}

    return Row(
        from_flax(module, loss, BATCH, metrics=near, predict=lambda module, batch: module(batch["x"]), unit="squares"),
        lambda key: module.init({"params": key, "dropout": key}, BATCH["x"], train=True),
        step,
        lambda variables: jnp.mean((module.apply(variables, BATCH["x"], train=False) - BATCH["y"]) ** 2),
    )


def of_nnx() -> Row:
    def step(module: Any, key: Any) -> Any:
        module.train()
        return loss(module, BATCH), module

    def evaluate(module: Any) -> Any:
        module.eval()
        return loss(module, BATCH)

    return Row(from_nnx(lambda rngs: Nnx(rngs), loss, BATCH), lambda key: Nnx(nnx.Rngs(key)), step, evaluate)


def of_equinox() -> Row:
    def step(weights: Any, key: Any) -> Any:
        value, state = loss_of_equinox(weights[0], BATCH, key=key, state=weights[1])
        return value, (weights[0], state)

    def evaluate(weights: Any) -> Any:
        return loss_of_equinox(eqx.nn.inference_mode(weights[0]), BATCH, key=KEY, state=weights[1])[0]

    make = eqx.nn.make_with_state(Equinox)
    return Row(from_equinox(make, loss_of_equinox, BATCH), make, step, evaluate)


def of_haiku() -> Row:
    trained, evaluated = (
        hk.transform_with_state(lambda batch, is_training=is_training: loss(lambda x: forward(x, is_training), batch))
        for is_training in (True, False)
    )

    def step(weights: Any, key: Any) -> Any:
        value, state = trained.apply(*weights, key, BATCH)
        return value, (weights[0], state)

    return Row(
        from_haiku(forward, loss, BATCH),
        lambda key: trained.init(key, BATCH),
        step,
        lambda weights: evaluated.apply(*weights, None, BATCH)[0],
    )


def arrays(weights: Any) -> list[Any]:
    leaves = jax.tree.leaves(nnx.state(weights) if isinstance(weights, nnx.Module) else weights)
    return [
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in leaves
        if eqx.is_array(leaf)
    ]


@pytest.mark.parametrize("make", [of_linen, of_nnx, of_equinox, of_haiku])
def test_it_is_the_librarys_own_model(make: Callable[[], Row], tmp_path: Path) -> None:
    row = make()
    params, state = row.model.init(KEY)
    for one, other in zip(arrays(row.model.own(params, state)), arrays(row.first(KEY)), strict=True):
        np.testing.assert_array_equal(one, other)

    # A module of nnx draws from streams of its own, which are a part of its state.
    given = {"state": state} | ({} if make is of_nnx else {"rng": KEY})
    value, after = jax.jit(row.model.loss)(params, BATCH, **given)
    expected, weights = row.step(row.first(KEY), KEY)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for one, other in zip(arrays(row.model.own(params, after)), arrays(weights), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert row.model.eval_loss is not None
    evaluated = jax.jit(row.model.eval_loss)(params, BATCH, state=after)
    np.testing.assert_allclose(evaluated, row.evaluate(weights), rtol=1e-6)
    assert abs(evaluated - value) > 1e-2

    tensors = {}
    for root, tree in (("params", params), ("state", after)):
        tensors |= dict(zip(names_of({root: tree}), (np.asarray(each) for each in arrays(tree)), strict=True))
    save_parameters(tmp_path / "step-00000001.safetensors", tensors)
    for one, other in zip(arrays(model_weights(row.model, tmp_path)), arrays(weights), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    functions = {key: each for key, each in row.model.functions().items() if key not in ("unit", "classes")}
    text = trace_training(**functions, batch=row.model.batch(4), optimizer=optax.sgd).text
    assert ("random/step" in text) == ("rng" in given)


def test_a_model_of_flax_compiles_and_gives_its_variables_back(tmp_path: Path, cpu: Device) -> None:
    row, said = of_linen(), []
    compile_training(
        optimizer=optax.adam,
        batch=row.model.batch(8),
        learning_rate=0.01,
        output=tmp_path / "bundle",
        progress=said.append,
        **row.model.functions(),
    )
    assert said[-1] == "check cpu against JAX"
    program = Program.load(open_bundle(tmp_path / "bundle"), cpu)
    assert program.manifest.unit == "squares"
    state = TrainingState.initial(program, seed=3)
    tensors = state.download()
    np.testing.assert_array_equal(
        tensors["params/Dense_0/kernel"], row.first(jax.random.key(3))["params"]["Dense_0"]["kernel"]
    )
    assert tensors["state/batch_stats/BatchNorm_0/mean"].shape == (4,)


def test_a_library_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]) -> None:
    monkeypatch.setattr("sonew_compiled.install.lacks", lambda module: module == "equinox")
    said = refusal(SonewError, lambda: from_equinox(eqx.nn.make_with_state(Equinox), loss_of_equinox, BATCH))
    assert said.startswith("a model of equinox needs equinox, which is not installed: ")
    assert "[equinox]" in said
