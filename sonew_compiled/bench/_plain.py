"""Which models `sonew bench` can compare with `jax.jit`."""

from __future__ import annotations

from sonew_compiled.errors import UsageError
from sonew_compiled.model_functions import ModelFunctions
from sonew_compiled.models import Model


def check_plain(model: Model) -> None:
    """Checks that a model's loss is `loss(params, batch)` and a mean over examples, as the rows beside it compute it.

    Raises:
      UsageError: the loss takes more, or evaluation uses another.
    """
    made = ModelFunctions(
        init=model.init, loss=model.loss, eval_loss=model.eval_loss, evaluation_draws=model.evaluation_draws
    )
    if made.takes_rng or made.has_state or model.eval_loss is not None or not model.per_example:
        raise UsageError(
            "sonew bench compares losses of parameters and a batch alone, and this model's takes more or is evaluated "
            "by another; measure it with sonew run and sonew tune"
        )
