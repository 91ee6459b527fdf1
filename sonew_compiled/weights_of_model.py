"""The weights of a run in the form in which a model's library has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from sonew_compiled.jax_settings import pinned_settings
from sonew_compiled.model_functions import ModelFunctions
from sonew_compiled.models import Model
from sonew_compiled.training_state import init_key
from sonew_compiled.weight_trees import load_weights


def model_weights(model: Model, path: str | Path, *, raw: bool = False) -> Any:
    """A model's weights from a run.

    Args:
      model: the model that was trained.
      path: as for `load_weights`: a run's folder, a checkpoint, or a file of `sonew export`.
      raw: as for `load_weights`.

    Returns:
      What `init` gives: the parameters, or `(params, state)`. For a model of another library its own form:
      flax's variables, an nnx module, an equinox module with its `eqx.nn.State` if it has one, haiku's
      `(params, state)`.

    Raises:
      UsageError: there is no such file, or it holds no state.
      SonewError: it is damaged, or is of another model.
    """
    functions = {name: value for name, value in model.functions().items() if name not in ("unit", "classes")}
    made = ModelFunctions(**functions)
    with pinned_settings():
        params, state = jax.eval_shape(lambda: made.first(init_key(0)))
        numbers = jax.tree.map(_numbers, (params, state))
        loaded = load_weights(path, numbers[0], numbers[1] if made.has_state else None, raw=raw)
        params = jax.tree.map(_keyed, params, loaded[0] if made.has_state else loaded)
        state = jax.tree.map(_keyed, state, loaded[1]) if made.has_state else {}
    if model.own is not None:
        return model.own(params, state)
    return (params, state) if made.has_state else params


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _numbers(leaf: Any) -> Any:
    """The shape and dtype of a tensor, or of the numbers of a random key."""
    return jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf


def _keyed(leaf: Any, array: jax.Array) -> jax.Array:
    if not _is_key(leaf):
        return array
    key: jax.Array = jax.random.wrap_key_data(array, impl=jax.random.key_impl(jnp.empty((), leaf.dtype)))
    return key
