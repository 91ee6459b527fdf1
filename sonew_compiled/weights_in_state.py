"""The parameters in the first state of an optimizer: an average of the parameters starts as a copy of them.

Training may start from given parameters in place of those of `init`. The runtime then replaces such copies too, and
refuses where the first state is computed from the parameters, since only `init` has that code.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.contract import Role, average_name
from sonew_compiled.held import Held
from sonew_compiled.jax_settings import pinned_settings
from sonew_compiled.model_functions import ModelFunctions
from sonew_compiled.recurrence import dependents, recurrences
from sonew_compiled.requirements import names_of
from sonew_compiled.training_state import init_key


@pinned_settings()
def weights_in_state(
    model: ModelFunctions,
    optimizer: Callable[..., optax.GradientTransformation],
    held: Held | None = None,
    *,
    averages: bool = False,
) -> dict[str, str]:
    """The tensors of the first state that depend on the parameters, by name: the optimizer's, and averages.

    Args:
      model: the model's functions.
      optimizer: makes the transformation from a learning rate.
      held: the choice of parameters that are not trained; by default those that are no floating-point numbers.
      averages: whether the state has averages of those that are.

    Returns:
      For each the name of the parameter that it is equal to; empty where it is computed from parameters.
    """
    params = jax.eval_shape(lambda seed: model.first(init_key(seed))[0], jax.ShapeDtypeStruct((), jnp.int32))
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    split = (held or Held()).split
    trained = split(params)[0]
    closed, state = jax.make_jaxpr(lambda params, rate: optimizer(rate).init(split(params)[0]), return_shape=True)(
        params, rate
    )
    sources = names_of({Role.PARAMETER.root: params})
    names = names_of({Role.OPTIMIZER.root: state})
    depends = dependents(closed, range(len(sources)))
    copied = names_of({Role.PARAMETER.root: trained}) if averages else []
    found = {average_name(name): name for name in copied}
    for name, does, each in zip(names, depends, recurrences(closed), strict=True):
        if does:
            source = each.handed_through
            found[name] = sources[source] if source is not None and source < len(sources) else ""
    return found
