"""JAX's account of a bundle's functions, with which the check compares."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew_compiled.check import Reference
from sonew_compiled.contract import Role
from sonew_compiled.errors import UsageError
from sonew_compiled.runtime.manifest import FunctionSpec, Manifest, TensorSpec
from sonew_compiled.trace import trace_training

BATCH = {
    "x": jax.ShapeDtypeStruct((8, 5), jnp.float32),
    "label": jax.ShapeDtypeStruct((8,), jnp.int32),
}


def init(key: jax.Array) -> Any:
    return {"w": jax.random.normal(key, (5, 3)), "b": jnp.zeros(3)}


def loss(params: Any, batch: Any) -> jax.Array:
    logits = batch["x"] @ params["w"] + params["b"]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]))


def reference(**changes: Any) -> Reference:
    """JAX's account of the model under plain gradient descent."""
    given: dict[str, Any] = {"loss": loss, "init": init, "batch": BATCH, "optimizer": lambda rate: optax.sgd(rate)}
    traced = trace_training(**given | changes)
    scalar = TensorSpec(name="learning_rate", shape=(), dtype="float32", role=Role.LEARNING_RATE)
    params = tuple(
        TensorSpec(name=f"params/{name}", shape=shape, dtype="float32", role=Role.PARAMETER)
        for name, shape in (("b", (3,)), ("w", (5, 3)))
    )
    fields = (
        TensorSpec(name="batch/label", shape=(8,), dtype="int32", role=Role.BATCH),
        TensorSpec(name="batch/x", shape=(8, 5), dtype="float32", role=Role.BATCH),
    )
    manifest = Manifest(
        model="m",
        optimizer={"name": "sgd"},
        defaults={"learning_rate": 0.5},
        versions={},
        functions={
            "init": FunctionSpec(
                inputs=(TensorSpec(name="seed", shape=(), dtype="int32", role=Role.SEED),), outputs=params
            ),
            "train_step": FunctionSpec(
                inputs=(*params, *fields, scalar),
                outputs=(*params, dataclasses.replace(scalar, name="loss", role=Role.LOSS)),
            ),
        },
        targets=(),
        classes={"label": 3},
    )
    return Reference(manifest=manifest, stablehlo=b"", traced=traced.references)


def test_parameters_that_start_as_nan_are_refused(refusal: Callable[..., str]) -> None:
    start = lambda key: {**init(key), "b": jnp.zeros(3) / jnp.arange(3.0)}  # noqa: E731
    said = refusal(UsageError, lambda: reference(init=start).calls())
    assert said == (
        "init gives NaN in 1 of 3 numbers of params/b for seed 729683222; mend init, or compile with --no-check"
    )


def test_the_reference_is_jaxs_own_step() -> None:
    calls = reference().calls()
    assert [call.function for call in calls] == ["init", *["train_step"] * 3]
    assert {int(label) for call in calls[1:] for label in call.inputs["batch/label"]} == {0, 1, 2}
    for call in calls[1:]:
        rate = call.inputs["learning_rate"]
        assert rate == (1 if call is calls[-1] else 0.5)
        given = {name: jnp.asarray(call.inputs[f"params/{name}"]) for name in ("w", "b")}
        batch = {name: jnp.asarray(call.inputs[f"batch/{name}"]) for name in ("x", "label")}
        value, gradients = jax.value_and_grad(loss)(given, batch)
        np.testing.assert_allclose(call.results["loss"], value, rtol=1e-6)
        for name in ("w", "b"):
            np.testing.assert_allclose(
                call.results[f"params/{name}"], given[name] - rate * gradients[name], rtol=1e-5, atol=1e-6
            )
            moved = call.movement(f"params/{name}")
            assert 0 < moved.max() < 1e-5
    for before, after in pairwise(calls):
        np.testing.assert_array_equal(after.inputs["params/w"], before.results["params/w"])


def test_a_rate_at_which_the_loss_explodes_is_lowered() -> None:
    calls = reference(optimizer=lambda rate: optax.sgd(1e4 * rate)).calls()
    assert [float(call.inputs["learning_rate"]) for call in calls[1:]] == pytest.approx([5e-4, 5e-4, 1])
    losses = [float(call.results["loss"]) for call in calls[1:]]
    assert losses[1] < 11 * losses[0]


def test_what_no_input_moves_moves_with_what_float32_computes() -> None:
    def steep(params: Any, batch: Any) -> jax.Array:
        left = jnp.full((5, 3), 0.1) * 3 - 0.3  # what rounding leaves of zero
        return jnp.sum(params["w"] * left) * 1e8 + jnp.sum(params["b"]) + jnp.mean(batch["x"])

    last = reference(loss=steep).calls()[-1]
    assert last.movement("params/w").max() < 1e-4
    last.move_further()
    assert last.movement("params/w").min() > 1
    assert last.movement("params/b").max() < 1e-4
