"""The exponential average of the trained parameters: a part of the state, with which a model is evaluated.

With the decay d, the average after step t is that of the parameters after the steps 1 to t, with weights that add up to
one (as `optax.ema` with its default debiasing):

    n_t = d n_{t-1} + 1                        n_0 = 0
    a_t = a_{t-1} + (w_t - a_{t-1}) / n_t      a_0 = w_0, which counts for nothing

It is kept in float32 under every precision, for its changes are far below what 16 bits can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sonew_compiled.contract import EVALUATED_ROLES, Role, role_of_root
from sonew_compiled.errors import UsageError
from sonew_compiled.held import joined
from sonew_compiled.requirements import slowest_decay

_WEIGHTS, _COUNT = "weights", "count"


def first_average(trained: Any) -> Any:
    """The average before the first step, of the trained parameters."""
    return {_WEIGHTS: jax.tree.map(_wide, trained), _COUNT: jnp.zeros((), jnp.float32)}


def next_average(average: Any, trained: Any, decay: float) -> Any:
    """The average after a step that has given these parameters."""
    count = decay * average[_COUNT] + 1
    weights = jax.tree.map(lambda a, w: a + (_wide(w) - a) / count.astype(a.dtype), average[_WEIGHTS], trained)
    return {_WEIGHTS: weights, _COUNT: count}


def weights_of(average: Any) -> Any:
    """The averaged parameters."""
    return average[_WEIGHTS]


def _wide(array: jax.Array) -> jax.Array:
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def evaluated_state(state: Mapping[str, Any], rest: Any) -> dict[str, Any]:
    """The part of a state that evaluation reads; of an averaged model only those parameters that are held, `rest`."""
    read = {root: tree for root, tree in state.items() if role_of_root(root) in EVALUATED_ROLES}
    if Role.AVERAGE.root not in state:
        return read
    return {**read, Role.PARAMETER.root: rest, Role.AVERAGE.root: {_WEIGHTS: state[Role.AVERAGE.root][_WEIGHTS]}}


def evaluated_params(evaluated: Mapping[str, Any], trained: Mapping[str, Any]) -> Any:
    """The parameters of an evaluation, from `evaluated_state`; averages in the dtypes of the trained parameters."""
    params = evaluated[Role.PARAMETER.root]
    if Role.AVERAGE.root not in evaluated:
        return params
    average = weights_of(evaluated[Role.AVERAGE.root])
    return joined(jax.tree.map(lambda a, w: a.astype(w.dtype), average, trained[Role.PARAMETER.root]), params)


def check_average(decay: float | None, arithmetic: str) -> None:
    """Checks that the average can follow the parameters.

    Raises:
      UsageError: its changes would be rounded away.
    """
    if decay is not None and decay >= (bound := slowest_decay(arithmetic)):
        raise UsageError(
            f"--ema is {decay:g}; this precision computes in {arithmetic}, where averages with a decay of {bound:.6g} "
            "and more do not change: give a smaller one, or --precision bf16"
        )
