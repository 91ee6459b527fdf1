"""The training state as JAX sees it: one tree for each of its roles, by the roots of their names.

For another kind of state, `first_state` makes its tree and `other_state` the next value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.backward import own_backward
from sonew_compiled.contract import Role
from sonew_compiled.errors import UsageError
from sonew_compiled.exponential_average import first_average
from sonew_compiled.held import Held, paths_of
from sonew_compiled.model_functions import ModelFunctions, step_key
from sonew_compiled.requirements import checked_model_state, checked_parameters
from sonew_compiled.step_settings import in_words

State = dict[str, Any]


def init_key(seed: Any) -> jax.Array:
    """The random key that a model's `init` is given."""
    return jax.random.key(seed, impl="threefry2x32")


def first_state(
    model: ModelFunctions,
    optimizer: Callable[[], optax.GradientTransformation],
    seed: Any,
    held: Held,
    *,
    averages: bool = False,
) -> State:
    """The state before the first step.

    Args:
      model: the model's functions.
      optimizer: makes the transformation of the parameters that are not held.
      seed: the seed of the run.
      held: the choice of parameters that are not trained.
      averages: whether the state has an average of those that are.
    """
    params, kept = model.first(init_key(seed))
    state = first_trained(params, optimizer, held)
    if averages:
        state[Role.AVERAGE.root] = first_average(held.split(state[Role.PARAMETER.root])[0])
    if model.has_state:
        state[Role.MODEL_STATE.root] = checked_model_state(kept)
    if model.takes_rng:
        state[Role.RANDOM.root] = {"seed": jnp.asarray(seed), "step": jnp.zeros((), jnp.int32)}
    return state


def first_trained(params: Any, optimizer: Callable[[], optax.GradientTransformation], held: Held) -> State:
    """All parameters, and the optimizer's state for those that it trains.

    Raises:
      UsageError: some are held, and the optimizer differentiates the loss itself, for all of them.
    """
    params = checked_parameters(params)
    trained, rest = held.split(params)
    transformation = optimizer()
    if jax.tree.leaves(rest) and own_backward(transformation) is not None:
        raise UsageError(
            f"the optimizer has a backward pass of its own, for all parameters, and {in_words(paths_of(rest))} "
            "are integers or frozen; choose another optimizer"
        )
    return {Role.PARAMETER.root: params, Role.OPTIMIZER.root: transformation.init(trained)}


def trained_part(state: Mapping[str, Any], held: Held) -> tuple[State, Any]:
    """The part of a state that an optimizer knows, and the parameters that are held."""
    trained, rest = held.split(state[Role.PARAMETER.root])
    return {Role.PARAMETER.root: trained, Role.OPTIMIZER.root: state[Role.OPTIMIZER.root]}, rest


def random_key(state: Mapping[str, Any]) -> jax.Array | None:
    """The random key of the step from this state; None for a model that draws nothing."""
    random = state.get(Role.RANDOM.root)
    return None if random is None else step_key(random["seed"], random["step"])


def other_state(state: Mapping[str, Any], kept: Any) -> State:
    """The part of the state after a step that does not belong to the optimizer.

    Args:
      state: the state before the step.
      kept: the model's new state, from its loss.
    """
    others = {}
    if Role.MODEL_STATE.root in state:
        others[Role.MODEL_STATE.root] = kept
    if random := state.get(Role.RANDOM.root):
        others[Role.RANDOM.root] = {**random, "step": random["step"] + 1}
    return others
