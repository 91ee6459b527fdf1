"""Models of dm-haiku."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from sonew_compiled.models._adapted import adapted, concrete, library, mode
from sonew_compiled.models._model import Model


def from_haiku(
    forward: Callable[..., Any], loss: Callable[[Any, Any], jax.Array], example_batch: Any, **fields: Any
) -> Model:
    """A model of a function that makes haiku modules and calls them.

    `hk.transform_with_state` makes its parameters and its state. `hk.next_rng_key()` gives folds of the step's key.

    Args:
      forward: the function: `def forward(image, is_training): return hk.nets.MLP([300, 10])(image)`. Whether it trains
        is told by those of `is_training`, `train`, `training`, `deterministic` and `inference` that it has.
      loss: `loss(forward, batch) -> scalar`, the mean over the batch's examples:
        `lambda forward, batch: cross_entropy(forward(batch["image"]), batch["label"])`. Evaluation uses it too.
      example_batch: a batch of any size, or its shapes and dtypes.
      **fields: of `Model`: `metrics` and `predict`, functions of `forward` and a batch likewise, `unit`, `classes`.

    Raises:
      SonewError: haiku is not installed.
    """
    hk = library("haiku", "haiku")

    def transformed(function: Callable[..., Any], *, training: bool) -> Any:
        flags = mode(forward, training=training)

        def called(*args: Any, **kwargs: Any) -> Any:
            return forward(*args, **{**flags, **kwargs})

        return hk.transform_with_state(lambda batch: function(called, batch))

    def init(key: jax.Array) -> tuple[Any, Any]:
        made: tuple[Any, Any] = transformed(loss, training=True).init(key, concrete(example_batch))
        return made

    def apply(
        function: Callable[..., Any], params: Any, state: Any, rng: Any, batch: Any, *, training: bool
    ) -> tuple[Any, Any]:
        result, after = transformed(function, training=training).apply(params, state, rng, batch)
        return result, after if training else state

    def own(params: Any, state: Any) -> Any:
        return params, state

    return adapted(init=init, apply=apply, loss=loss, example_batch=example_batch, own=own, fields=fields)
