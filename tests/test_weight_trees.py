"""Weights between files and JAX's trees, and the copies of parameters in the first state of an optimizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sonew_compiled
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.model_functions import ModelFunctions
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.presets import OPTIMIZERS, RECORDS, optimizer_settings
from sonew_compiled.weights_in_state import weights_in_state


class Layer(NamedTuple):
    kernel: Any
    bias: Any


TREES = {
    "a nested dict": {"Dense_0": {"kernel": np.ones((3, 2), np.float32), "bias": np.zeros(2, np.float32)}},
    "flax's variables": {"params": {"Dense_0": {"kernel": np.full((3, 2), 2, np.float32)}}},
    "tuples": [Layer(np.ones(4, np.float32), None), (np.float32(3),)],
    "a bare array": np.arange(3, dtype=np.float32),
}


@pytest.mark.parametrize("kind", TREES)
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_trees_go_to_files_and_come_back(kind: str, suffix: str, tmp_path: Path) -> None:
    tree = jax.tree.map(jnp.asarray, TREES[kind])
    sonew_compiled.save_weights(tmp_path / f"w{suffix}", tree)
    loaded = sonew_compiled.load_weights(tmp_path / f"w{suffix}", jax.tree.map(jnp.zeros_like, tree))
    assert jax.tree.structure(loaded) == jax.tree.structure(tree)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), loaded, tree)))


def test_the_state_of_a_model_comes_back_too(tmp_path: Path, refusal: Callable[..., str]) -> None:
    params, state = {"w": jnp.ones(2)}, {"mean": jnp.full(2, 0.5), "count": jnp.asarray(3)}
    path = tmp_path / "w.npz"
    sonew_compiled.save_weights(path, params, state)
    assert sorted(np.load(path).files) == ["state/count", "state/mean", "w"]
    loaded, kept = sonew_compiled.load_weights(path, params, state)
    np.testing.assert_array_equal(loaded["w"], [1, 1])
    assert (kept["count"], kept["mean"].tolist()) == (3, [0.5, 0.5])
    sonew_compiled.save_weights(path, params)
    assert "lacks state/count" in refusal(UsageError, lambda: sonew_compiled.load_weights(path, params, state))
    other = {"w": jnp.ones(3)}
    assert "'w' has shape [2]" in refusal(SonewError, lambda: sonew_compiled.load_weights(path, other))
    message = refusal(UsageError, lambda: sonew_compiled.save_weights(path, {"act": jax.nn.relu}))
    assert "params/act is " in message


MODEL = ModelFunctions(
    init=lambda key: {"w": jax.random.normal(key, (4, 3)), "b": jnp.zeros(3)},
    loss=lambda params, batch: jnp.mean((batch["x"] @ params["w"] + params["b"]) ** 2),
)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (optax.adam, {}),
        (optax.contrib.schedule_free_sgd, {"optimizer/z/b": "params/b", "optimizer/z/w": "params/w"}),
        (lambda rate: optax.chain(optax.adam(rate), optax.ema(0.9)), {}),
        (
            lambda rate: optax.GradientTransformation(
                lambda params: {"scale": 2 * params["w"], "count": jnp.zeros(())}, optax.adam(rate).update
            ),
            {"optimizer/scale": ""},
        ),
    ],
)
def test_copies_of_parameters_in_a_first_state_are_found(optimizer: Any, expected: dict[str, str]) -> None:
    assert weights_in_state(MODEL, optimizer) == expected


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if not RECORDS[name].needs_loss])
def test_every_optimizer_that_ships_can_start_from_given_weights(name: str) -> None:
    assert (
        "" not in weights_in_state(MODEL, optimizer_factory(optimizer_settings(name), loss=None, batch=None)).values()
    )


def test_a_flax_model_comes_back(tmp_path: Path) -> None:
    linen = pytest.importorskip("flax.linen", reason="flax is not installed")
    module = linen.Sequential([linen.Dense(7), linen.BatchNorm(use_running_average=True), linen.Dense(3)])
    example = jnp.ones((2, 5))
    variables = module.init(jax.random.key(0), example)
    params, stats = variables["params"], variables["batch_stats"]
    sonew_compiled.save_weights(tmp_path / "w.npz", params, stats)
    blank = jax.tree.map(jnp.zeros_like, (params, stats))
    params, stats = sonew_compiled.load_weights(tmp_path / "w.npz", *blank)
    made = module.apply({"params": params, "batch_stats": stats}, example)
    np.testing.assert_array_equal(made, module.apply(variables, example))


def test_an_equinox_model_comes_back(tmp_path: Path) -> None:
    equinox = pytest.importorskip("equinox", reason="equinox is not installed")
    model = equinox.nn.MLP(5, 3, 7, 2, key=jax.random.key(1))
    arrays, rest = equinox.partition(model, equinox.is_array)
    sonew_compiled.save_weights(tmp_path / "w.npz", arrays)
    assert sorted(np.load(tmp_path / "w.npz").files)[0] == "layers/0/bias"
    loaded = sonew_compiled.load_weights(tmp_path / "w.npz", jax.tree.map(jnp.zeros_like, arrays))
    np.testing.assert_array_equal(equinox.combine(loaded, rest)(jnp.ones(5)), model(jnp.ones(5)))
