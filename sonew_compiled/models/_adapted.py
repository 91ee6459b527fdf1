"""Models of other libraries as a `Model`: the code that the adapters of all libraries share."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from sonew_compiled.install import require
from sonew_compiled.models._model import Model
from sonew_compiled.recurrence import dependents

# Arguments that tell a module whether it trains.
_TRAINING = ("train", "training", "is_training")
_INFERENCE = ("deterministic", "use_running_average", "inference")


class Apply(Protocol):
    """Calls a user's `function(model, batch)` with the model made of parameters and state, in one of its modes.

    In training it returns the result and the state afterwards; in evaluation the state that it was given.
    """

    def __call__(
        self, function: Callable[..., Any], params: Any, state: Any, rng: Any, batch: Any, *, training: bool
    ) -> tuple[Any, Any]:
        """The result of the function, and the state afterwards."""
        ...


def library(name: str, extra: str) -> Any:
    """A module of a library that not everybody has.

    Raises:
      SonewError: it is not installed; the message has the command that installs it.
    """
    require(extra, purpose=f"a model of {extra}")
    return importlib.import_module(name)


def adapted(
    *,
    init: Callable[[jax.Array], tuple[Any, Any]],
    apply: Apply,
    loss: Callable[[Any, Any], jax.Array],
    example_batch: Any,
    own: Callable[[Any, Any], Any],
    fields: Mapping[str, Any],
) -> Model:
    """A model whose loss takes `rng` if it draws, and `state` if there is one.

    Args:
      init: gives parameters and state; a state without leaves is none.
      apply: calls functions of the library's model.
      loss: `loss(model, batch)`.
      example_batch: a batch, or its shapes and dtypes.
      own: makes the library's own form of weights from parameters and state.
      fields: other fields of the `Model`; in `metrics` and `predict` the functions take the library's model.
    """
    shapes = jax.eval_shape(lambda: concrete(example_batch))
    params, state = jax.eval_shape(init, jax.random.key(0))
    key = jax.random.key(0)

    def train(params: Any, state: Any, rng: Any, batch: Any) -> tuple[Any, Any]:
        return apply(loss, params, state, rng, batch, training=True)

    def evaluating(function: Callable[..., Any]) -> Callable[..., Any]:
        def with_state(params: Any, batch: Any, *, state: Any) -> Any:
            return apply(function, params, state, key, batch, training=False)[0]

        def without(params: Any, batch: Any) -> Any:
            return with_state(params, batch, state=state)

        return with_state if has_state else without

    has_state = bool(jax.tree.leaves(state))
    jaxpr = jax.make_jaxpr(lambda rng, others, batch: train(others[0], others[1], rng, batch))(
        key, (params, state), shapes
    )
    draws = any(dependents(jaxpr, [0]))
    others = {name: evaluating(fields[name]) for name in ("metrics", "predict") if fields.get(name) is not None}
    return Model(
        **{
            **fields,
            **others,
            "init": init if has_state else lambda key: init(key)[0],
            "loss": _by_keywords(train, state, key, has_state=has_state, draws=draws),
            "eval_loss": evaluating(loss),
            "batch": lambda size: jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), shapes),
            "own": own,
        }
    )


def concrete(batch: Any) -> Any:
    """A batch to make a model's parameters with: ones where only shapes are given."""
    return jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x, batch)


def _by_keywords(
    train: Callable[..., tuple[Any, Any]], state: Any, key: jax.Array, *, has_state: bool, draws: bool
) -> Callable[..., Any]:
    """The loss as a function whose keyword-only arguments tell a `Model` what it takes."""

    def both(params: Any, batch: Any, *, rng: Any, state: Any) -> Any:
        return train(params, state, rng, batch)

    def keeping(params: Any, batch: Any, *, state: Any) -> Any:
        return train(params, state, key, batch)

    def drawing(params: Any, batch: Any, *, rng: Any) -> Any:
        return train(params, state, rng, batch)[0]

    def plain(params: Any, batch: Any) -> Any:
        return train(params, state, key, batch)[0]

    if has_state:
        return both if draws else keeping
    return drawing if draws else plain


def mode(function: Callable[..., Any], *, training: bool) -> dict[str, bool]:
    """Those arguments of a module's call that tell it whether it trains."""
    names = inspect.signature(function).parameters
    given = dict.fromkeys(_TRAINING, training) | dict.fromkeys(_INFERENCE, not training)
    return {name: value for name, value in given.items() if name in names}
