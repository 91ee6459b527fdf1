"""Which models `sonew bench` can compare with `jax.jit`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sonew_compiled.errors import UsageError
from sonew_compiled.model_functions import ModelFunctions
from sonew_compiled.models import Model


def check_plain(model: Model) -> None:
    """Checks that a model's loss is `loss(params, batch)` and a mean over examples, as the rows beside it compute it.

    Raises:
      UsageError: the loss takes more, evaluation uses another, or a parameter is an integer.
    """
    made = ModelFunctions(
        init=model.init, loss=model.loss, eval_loss=model.eval_loss, evaluation_draws=model.evaluation_draws
    )
    if made.takes_rng or made.has_state or model.eval_loss is not None or not model.per_example:
        raise UsageError(
            "sonew bench compares losses of parameters and a batch alone, and this model's takes more, or another "
            "function evaluates it; measure it with sonew run and sonew tune"
        )
    params = jax.eval_shape(model.init, jax.random.key(0))
    if any(not jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(params)):
        raise UsageError(
            "sonew bench differentiates by all parameters, and some of this model's are integers; measure it with "
            "sonew run and sonew tune"
        )
