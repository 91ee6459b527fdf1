"""`sonew()` under what optax and JAX wrap around optimizers gives the updates of `sonew()` alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from sonew_compiled import sonew
from sonew_compiled.optimizer import scale_by_sonew

Tree = Any

RATE = 3e-3
# The statistics of few steps are singular: with the damping that ships, rounding would decide where edges are removed.
EPS = 1e-2
PARAMS = {
    "kernel": jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32),
    "bias": jnp.ones(4),
}


def _gradients(step: int) -> Tree:
    rng = np.random.default_rng([7, step])
    return {name: jnp.asarray(rng.normal(size=value.shape), jnp.float32) for name, value in PARAMS.items()}


def _trained(tx: optax.GradientTransformation, *, params: Tree = None, steps: int = 4, jit: bool = True) -> Tree:
    """The parameters after some steps."""
    params = PARAMS if params is None else params
    update = jax.jit(tx.update) if jit else tx.update
    state = tx.init(params)
    for step in range(steps):
        updates, state = update(_gradients(step), state, params)
        params = optax.apply_updates(params, updates)
    return params


def _agree(got: Tree, wanted: Tree) -> None:
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-6, atol=1e-7, err_msg=name)


PLAIN: dict[str, Callable[[], optax.GradientTransformation]] = {
    "inject_hyperparams": lambda: optax.inject_hyperparams(sonew)(learning_rate=RATE, eps=EPS),
    "inject_hyperparams, a schedule": lambda: optax.inject_hyperparams(sonew)(optax.constant_schedule(RATE), eps=EPS),
    "MultiSteps": lambda: optax.MultiSteps(sonew(RATE, eps=EPS), 1).gradient_transformation(),
    "masked": lambda: optax.masked(sonew(RATE, eps=EPS), {"kernel": True, "bias": True}),
    "partition": lambda: optax.partition(
        {"a": sonew(RATE, eps=EPS), "b": sonew(RATE, eps=EPS)}, {"kernel": "a", "bias": "b"}
    ),
    "apply_if_finite": lambda: optax.apply_if_finite(sonew(RATE, eps=EPS), 3),
    "chain": lambda: optax.chain(scale_by_sonew(eps=EPS), optax.scale(-RATE)),
}


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("name", PLAIN)
def test_wrapped_it_gives_the_same_parameters(name: str, jit: bool) -> None:
    _agree(_trained(PLAIN[name](), jit=jit), _trained(sonew(RATE, eps=EPS)))


OTHERS: dict[str, Any] = {
    "b1": 0.5,
    "b2": 0.6,
    "eps": EPS,
    "weight_decay": 0.1,
    "band": 3,
    "grafting": "none",
    "graft_eps": 1e-4,
    "tolerance": 1e-3,
}


@pytest.mark.parametrize("jit", [True, False])
def test_all_settings_may_be_injected(jit: bool) -> None:
    injected = optax.inject_hyperparams(sonew)(learning_rate=RATE, **OTHERS)
    _agree(_trained(injected, jit=jit), _trained(sonew(RATE, **OTHERS)))


def test_what_is_injected_can_be_changed_between_steps() -> None:
    tx = optax.inject_hyperparams(sonew)(learning_rate=RATE, eps=EPS)
    state = tx.init(PARAMS)
    assert set(state.hyperparams) == {"learning_rate", "b1", "b2", "eps", "weight_decay"}
    first, state = jax.jit(tx.update)(_gradients(0), state, PARAMS)
    state.hyperparams["learning_rate"] = jnp.asarray(2 * RATE)
    state.hyperparams["weight_decay"] = jnp.asarray(0.5)
    again, _ = jax.jit(tx.update)(_gradients(0), tx.init(PARAMS), PARAMS)
    _agree(again, first)
    decayed, _ = jax.jit(tx.update)(_gradients(1), state, PARAMS)
    plain = sonew(RATE, eps=EPS)
    before = plain.update(_gradients(0), plain.init(PARAMS), PARAMS)[1]
    direction, _ = plain.update(_gradients(1), before, PARAMS)
    wanted = jax.tree.map(lambda u, p: 2 * u - 2 * RATE * 0.5 * p, direction, PARAMS)
    _agree(decayed, wanted)


def test_the_statistics_keep_the_dtype_of_the_parameters() -> None:
    params = jax.tree.map(lambda each: each.astype(jnp.bfloat16), PARAMS)
    tx = optax.inject_hyperparams(sonew)(learning_rate=RATE, eps=EPS)
    gradients = jax.tree.map(lambda each: each.astype(jnp.bfloat16), _gradients(0))
    state = tx.init(params)
    _, after = jax.jit(tx.update)(gradients, state, params)
    assert jax.tree.map(lambda each: each.dtype, after.inner_state) == jax.tree.map(
        lambda each: each.dtype, state.inner_state
    )


def test_a_traced_band_is_refused_where_the_state_is_made() -> None:
    with pytest.raises(ValueError, match=r"band is traced.*call init outside of jax\.jit"):
        jax.jit(lambda band: scale_by_sonew(band=band).init(PARAMS))(2)
    state = scale_by_sonew(band=2).init(PARAMS)
    with pytest.raises(ValueError, match="band is 1 and the state has 2; make a new state by init"):
        scale_by_sonew(band=1).update(_gradients(0), state, PARAMS)
    with pytest.raises(ValueError, match=r"band is .*-1.*; give a whole number"):
        optax.inject_hyperparams(sonew)(learning_rate=RATE, band=-1).init(PARAMS)


def test_many_steps_apply_the_mean_of_their_gradients() -> None:
    tx = optax.MultiSteps(sonew(RATE, eps=EPS), 2).gradient_transformation()
    plain = sonew(RATE, eps=EPS)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, _gradients(0), _gradients(1))
    updates, _ = plain.update(mean, plain.init(PARAMS), PARAMS)
    _agree(_trained(tx, steps=2), optax.apply_updates(PARAMS, updates))


def test_flattened_it_follows_one_chain_over_all_parameters() -> None:
    flat, unravel = jax.flatten_util.ravel_pytree(PARAMS)
    settings: dict[str, Any] = {"rank1": "sonew", "grafting": "none", "band": 2, "eps": EPS}
    plain = sonew(RATE, **settings)
    updates, _ = plain.update(jax.flatten_util.ravel_pytree(_gradients(0))[0], plain.init(flat), flat)
    _agree(_trained(optax.flatten(sonew(RATE, **settings)), steps=1), unravel(flat + updates))


def test_lookahead_meets_its_fast_parameters_half_way() -> None:
    tx = optax.lookahead(sonew(RATE, eps=EPS), sync_period=3, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(PARAMS)
    state = tx.init(params)
    for step in range(3):
        updates, state = jax.jit(tx.update)(_gradients(step), state, params)
        params = optax.apply_updates(params, updates)
    fast = _trained(sonew(RATE, eps=EPS), steps=3)
    wanted = jax.tree.map(lambda slow, fast: slow + 0.5 * (fast - slow), PARAMS, fast)
    _agree(params.slow, wanted)
    _agree(params.fast, wanted)


def test_schedule_free_takes_its_first_step() -> None:
    tx = optax.contrib.schedule_free(sonew(RATE, b1=0.0, eps=EPS), RATE, b1=0.9)
    state = tx.init(PARAMS)
    updates, state = jax.jit(tx.update)(_gradients(0), state, PARAMS)
    # At the first step the average `x` is the iterate `z`, and so is the point `y` between them.
    _agree(optax.apply_updates(PARAMS, updates), _trained(sonew(RATE, b1=0.0, eps=EPS), steps=1))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("band", [1, 2])
def test_models_side_by_side_under_vmap_are_models_alone(band: int) -> None:
    tx = sonew(RATE, eps=EPS, band=band)
    both = jax.tree.map(lambda each: jnp.stack([each, 2 * each]), PARAMS)
    gradients = jax.tree.map(lambda *each: jnp.stack(each), _gradients(0), _gradients(1))
    state = jax.vmap(tx.init)(both)
    updates, _ = jax.jit(jax.vmap(tx.update))(gradients, state, both)
    for index in range(2):
        one = jax.tree.map(lambda each, index=index: each[index], both)
        alone, _ = tx.update(_gradients(index), tx.init(one), one)
        _agree(jax.tree.map(lambda each, index=index: each[index], updates), alone)


@pytest.mark.parametrize("band", [1, 2])
def test_it_runs_under_shard_map_and_pmap(band: int) -> None:
    tx = sonew(RATE, eps=EPS, band=band)
    alone, _ = tx.update(_gradients(0), tx.init(PARAMS), PARAMS)
    mesh = Mesh(np.array(jax.devices()[:1]), ("i",))
    none = PartitionSpec()

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(none, none), out_specs=none)
    def step(gradients: Tree, params: Tree) -> Tree:
        mean = jax.lax.pmean(gradients, "i")
        return tx.update(mean, tx.init(params), params)[0]

    _agree(jax.jit(step)(_gradients(0), PARAMS), alone)
    first = jax.tree.map(lambda each: each[None], (_gradients(0), PARAMS))
    mapped = jax.pmap(lambda g, p: tx.update(jax.lax.pmean(g, "i"), tx.init(p), p)[0], axis_name="i")(*first)
    _agree(jax.tree.map(lambda each: each[0], mapped), alone)
