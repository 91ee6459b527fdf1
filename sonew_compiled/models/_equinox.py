"""Models of equinox."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax

from sonew_compiled.models._adapted import adapted, library
from sonew_compiled.models._model import Model


def from_equinox(
    make: Callable[[jax.Array], Any], loss: Callable[..., Any], example_batch: Any, **fields: Any
) -> Model:
    """A model of an `equinox.Module`.

    Arrays among the module's leaves are the parameters, and everything else, such as activation functions, is part of
    the code. An `eqx.nn.State` is the model's state.

    Args:
      make: makes the module from a key: `lambda key: Net(key=key)`; the module and its `eqx.nn.State`, where it has
        one: `eqx.nn.make_with_state(Net)`.
      loss: `loss(module, batch) -> scalar`, the mean over the batch's examples. By the names of keyword-only arguments
        it is given `key`, another one in every step, and `state`, and with the latter returns `(loss, state)`. In
        evaluation the module is in `eqx.nn.inference_mode`, and the key is a fixed one.
      example_batch: a batch of any size, or its shapes and dtypes.
      **fields: of `Model`: `metrics` and `predict`, functions of the module and a batch and, by keyword, `key` and
        `state`, whose new value they do not return; `unit`, `classes`.

    Raises:
      SonewError: equinox is not installed.
    """
    eqx = library("equinox", "equinox")

    def made(key: jax.Array) -> tuple[Any, Any]:
        module = make(key)
        return module if isinstance(module, tuple) and len(module) == 2 else (module, None)

    def is_array(leaf: Any) -> bool:
        return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)

    shapes, state_shapes = eqx.filter_eval_shape(made, jax.random.key(0))
    _, static = eqx.partition(shapes, is_array)
    tree: Any = jax.tree.structure(state_shapes)

    def init(key: jax.Array) -> tuple[Any, Any]:
        module, state = made(key)
        return eqx.filter(module, eqx.is_array), jax.tree.leaves(state)

    def apply(
        function: Callable[..., Any], params: Any, state: Any, rng: Any, batch: Any, *, training: bool
    ) -> tuple[Any, Any]:
        module = eqx.combine(params, static)
        if not training:
            module = eqx.nn.inference_mode(module)
        names = inspect.signature(function).parameters
        given = {"key": rng, "state": tree.unflatten(state)}
        result = function(module, batch, **{name: value for name, value in given.items() if name in names})
        if function is loss and "state" in names:
            result, after = result
            return result, jax.tree.leaves(after)
        return result, state

    def own(params: Any, state: Any) -> Any:
        module = eqx.combine(params, static)
        return (module, tree.unflatten(state)) if state_shapes is not None else module

    return adapted(init=init, apply=apply, loss=loss, example_batch=example_batch, own=own, fields=fields)
