"""Losses whose gradients a scaled cotangent would make wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from sonew_compiled import passes
from sonew_compiled.errors import UsageError
from sonew_compiled.passes.precision.loss_scaling import LARGEST_SCALE
from sonew_compiled.presets import PRECISIONS
from sonew_compiled.trace import trace_training

BATCH = {"x": jax.ShapeDtypeStruct((16, 5), jnp.float32), "y": jax.ShapeDtypeStruct((16, 3), jnp.int32)}


def passed_back(rule: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """The identity whose cotangent goes through a rule."""
    function = jax.custom_vjp(lambda x: x)
    function.defvjp(lambda x: (x, None), lambda _, cotangent: (rule(cotangent),))
    return function


CLIPPED = passed_back(lambda g: jnp.clip(g, -1e-2, 1e-2))
SIGNED = passed_back(jnp.sign)
THRESHOLD = passed_back(lambda g: jnp.where(jnp.abs(g) > 1e-2, g, 0))
# Proportional, although no derivatives of anything.
REVERSED = passed_back(lambda g: -2 * g)
AVERAGED = passed_back(lambda g: g - g.mean(0))


def trace(function: Callable[[jax.Array], jax.Array], **changes: Any) -> None:
    def loss(params: Any, batch: Any) -> jax.Array:
        return jnp.mean((jnp.tanh(function(batch["x"] @ params["w"])) + params["b"] - batch["y"]) ** 2)

    def init(key: jax.Array) -> Any:
        return {"w": jax.random.normal(key, (5, 3)), "b": jnp.zeros(3)}

    trace_training(**{"init": init, "loss": loss, "optimizer": optax.adam, "batch": BATCH} | changes)


@pytest.mark.parametrize("function", [CLIPPED, SIGNED, THRESHOLD], ids=["clipped", "sign", "threshold"])
def test_a_rule_that_is_not_proportional_is_refused_where_the_loss_is_scaled(
    function: Callable[[jax.Array], jax.Array], refusal: Callable[..., str]
) -> None:
    message = refusal(UsageError, lambda: trace(function, loss_scale=2.0**24))
    assert message.startswith("the gradient of params/w is not proportional to that of the loss")
    assert "--precision bf16-mixed" in message
    trace(function)


@pytest.mark.parametrize("function", [REVERSED, AVERAGED], ids=["reversed", "averaged"])
def test_a_rule_that_is_proportional_is_taken(function: Callable[[jax.Array], jax.Array]) -> None:
    trace(function, loss_scale=2.0**24)
    trace(function, loss_scale=2.0**24, freeze=("b",))


def test_the_policies_that_scale_the_loss() -> None:
    for policy in map(passes.precision_policy, PRECISIONS):
        assert policy.loss_scale == (LARGEST_SCALE if "loss-scaling" in policy.passes else None)


def test_the_compiler_asks_for_it(refusal: Callable[..., str], tmp_path: Any) -> None:
    from sonew_compiled import compile_training

    def init(key: jax.Array) -> Any:
        return {"w": jnp.ones(5)}

    def loss(params: Any, batch: Any) -> jax.Array:
        return jnp.mean(CLIPPED(batch["x"] @ params["w"]) ** 2)

    given = {"output": tmp_path / "b", "learning_rate": 0.1, "precision": "f16-mixed"}
    message = refusal(UsageError, lambda: compile_training(loss, init, optax.sgd, {"x": BATCH["x"]}, **given))
    assert "not proportional" in message
    assert not (tmp_path / "b").exists()
