"""The rules replace JAX's own lowering in our trace only, everywhere in a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core.primitives import threefry2x32_p

from sonew_compiled.rules import RULES, lowering_parameters
from sonew_compiled.rules._threefry import threefry2x32

Draw = Callable[[jax.Array], Any]


@jax.custom_jvp
def _own_derivative(key: jax.Array, x: jax.Array) -> jax.Array:
    return x * jax.random.normal(key, (3,))


_own_derivative.defjvps(None, lambda dx, _, key, x: dx)

# Draws in each kind of region and transformation.
NESTED: dict[str, Draw] = {
    "plain": lambda key: jax.random.normal(key, (3,)),
    "jit": jax.jit(lambda key: jax.random.normal(key, (3,))),
    "scan": lambda key: jax.lax.scan(lambda k, _: (k, jax.random.normal(k, (3,))), key, None, length=2)[1],
    "cond": lambda key: jax.lax.cond(True, lambda k: jax.random.normal(k, (3,)), lambda k: jnp.ones(3), key),
    "while": lambda key: jax.lax.fori_loop(0, 2, lambda i, x: x + jax.random.normal(key, (3,)), jnp.zeros(3)),
    "vmap": lambda key: jax.vmap(lambda k: jax.random.normal(k, (3,)))(jax.random.split(key, 2)),
    "checkpoint": jax.checkpoint(lambda key: jax.random.normal(key, (3,))),
    "custom_jvp": lambda key: _own_derivative(key, jnp.ones(3)),
}


def test_each_primitive_has_one_rule() -> None:
    assert len({rule.primitive for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("where", NESTED)
def test_rules_reach_wherever_a_primitive_stands(where: str) -> None:
    key = jax.random.key(3)
    traced = jax.jit(NESTED[where]).trace(key)
    lowered = traced.lower(lowering_platforms=("cpu",), _private_parameters=lowering_parameters())
    text = lowered.as_text()
    # Each of the twenty rounds has two shifts; JAX's loop for processors would have only four rounds.
    assert text.count("stablehlo.shift_left") >= 20
    np.testing.assert_array_equal(lowered.compile()(key), NESTED[where](key))


def test_the_users_own_jax_keeps_its_lowering() -> None:
    function = jax.jit(lambda key: jax.random.normal(key, (3,)))
    before = function.lower(jax.random.key(0)).as_text()
    function.trace(jax.random.key(0)).lower(lowering_platforms=("cpu",), _private_parameters=lowering_parameters())
    assert function.lower(jax.random.key(0)).as_text() == before


def test_threefry_is_jaxs() -> None:
    random = np.random.default_rng(0)
    operands = [jnp.asarray(random.integers(0, 2**32, 7, dtype=np.uint32)) for _ in range(4)]
    for ours, jaxs in zip(threefry2x32(*operands), threefry2x32_p.bind(*operands), strict=True):
        np.testing.assert_array_equal(ours, jaxs)
