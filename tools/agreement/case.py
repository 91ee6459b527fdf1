"""A small model with an optimizer, to be compared with JAX tensor by tensor, and several of them as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Tree = Any


def values(fields: Mapping[str, jax.ShapeDtypeStruct], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random values for the fields of a batch: normal numbers, integers from 0 to 4, and booleans."""

    def drawn(spec: jax.ShapeDtypeStruct) -> np.ndarray:
        if spec.dtype == np.bool_:
            return rng.random(spec.shape) < 0.5
        if np.issubdtype(spec.dtype, np.integer):
            return rng.integers(0, 5, spec.shape).astype(spec.dtype)
        return rng.normal(size=spec.shape).astype(spec.dtype)

    return {name: drawn(spec) for name, spec in sorted(fields.items())}


def weighed(value: jax.Array) -> jax.Array:
    """A scalar that distinguishes arrays: a mean of bounded numbers, each with a weight of its own."""
    weights = np.cos(np.arange(value.size)).reshape(value.shape)
    number = jnp.tanh(value.astype(jnp.result_type(float)))
    return jnp.mean(number * weights.astype(number.dtype))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model with an optimizer.

    Attributes:
      init: `init(key) -> params`.
      loss: `loss(params, batch) -> scalar`, for batches of any size, since `eval_step` evaluates single examples.
      optimizer: makes the transformation from a traced float32 learning rate.
      batch: the shapes and dtypes of the fields.
    """

    init: Callable[[jax.Array], Tree]
    loss: Callable[[Tree, Tree], jax.Array]
    optimizer: Callable[[Any], optax.GradientTransformation]
    batch: Mapping[str, jax.ShapeDtypeStruct]


def combine(cases: Mapping[str, Case]) -> Case:
    """One case made of several that read the same batch: the sum of their losses, and the parameters of each by name.

    It compiles in a fraction of the time, and the name of every tensor but the losses tells its case. A loss that all
    of them have is computed at once, for their parameters as stacks.
    """
    first = next(iter(cases.values()))
    are_alike = all(each.loss is first.loss for each in cases.values())
    assert all(each.batch == first.batch for each in cases.values()), list(cases)

    def init(key: jax.Array) -> Tree:
        keys = jax.random.split(key, len(cases))
        return {name: each.init(one) for (name, each), one in zip(cases.items(), keys, strict=True)}

    def loss(params: Tree, batch: Tree) -> jax.Array:
        if are_alike:
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[name] for name in cases))
            return jnp.sum(jax.vmap(first.loss, in_axes=(0, None))(stacked, batch))
        return sum((each.loss(params[name], batch) for name, each in cases.items()), jnp.float32(0))

    def optimizer(rate: Any) -> optax.GradientTransformation:
        each = {name: case.optimizer(rate) for name, case in cases.items()}

        def update(grads: Tree, state: Tree, params: Tree = None) -> tuple[Tree, Tree]:
            done = {name: tx.update(grads[name], state[name], params[name]) for name, tx in each.items()}
            return {name: pair[0] for name, pair in done.items()}, {name: pair[1] for name, pair in done.items()}

        return optax.GradientTransformation(
            lambda params: {name: tx.init(params[name]) for name, tx in each.items()}, update
        )

    return Case(
        init=init,
        loss=loss,
        optimizer=optimizer,
        batch=first.batch,
    )
