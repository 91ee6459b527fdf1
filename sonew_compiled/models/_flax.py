"""Models of flax: `flax.linen` and `flax.nnx`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from sonew_compiled.models._adapted import adapted, concrete, library, mode
from sonew_compiled.models._model import Model

_PARAMS = "params"


class _Called:
    """A linen module within `apply`, told whether it trains by the arguments that its call has for that."""

    def __init__(self, module: Any, flags: dict[str, bool]) -> None:
        self._module = module
        self._flags = flags

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._module(*args, **{**self._flags, **kwargs})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def from_flax(
    module: Any,
    loss: Callable[[Any, Any], jax.Array],
    example_batch: Any,
    *,
    rngs: Sequence[str] = ("dropout",),
    **fields: Any,
) -> Model:
    """A model of a `flax.linen` module.

    The collection `params` holds the parameters. All others, such as `batch_stats`, are the model's state;
    `intermediates` are dropped. A step gives `rngs[i]` the key `fold_in(rng, i)`. `init` gives `params` the key of
    `init` itself, and the others folds of it.

    Args:
      module: the module. Whether it trains is told by those of `train`, `training`, `is_training`, `deterministic`,
        `use_running_average` and `inference` that its call has.
      loss: `loss(module, batch) -> scalar`, the mean over the batch's examples; it calls the module:
        `lambda module, batch: cross_entropy(module(batch["image"]), batch["label"])`. Evaluation uses it too.
      example_batch: a batch of any size, or its shapes and dtypes.
      rngs: the names of the random streams that the module draws from.
      **fields: of `Model`: `metrics` and `predict`, functions of the module and a batch likewise, `unit`, `classes`.

    Raises:
      SonewError: flax is not installed.
    """
    nn = library("flax.linen", "flax")

    def keys(rng: jax.Array) -> dict[str, jax.Array]:
        return {name: jax.random.fold_in(rng, index) for index, name in enumerate(rngs)}

    def called(function: Callable[..., Any], training: bool) -> Callable[..., Any]:
        flags = mode(type(module).__call__, training=training)
        return lambda bound, batch: function(_Called(bound, flags), batch)

    def init(key: jax.Array) -> tuple[Any, Any]:
        made = nn.init(called(loss, True), module)({_PARAMS: key, **keys(key)}, concrete(example_batch))
        return made[_PARAMS], {name: made[name] for name in made if name not in (_PARAMS, "intermediates")}

    def apply(
        function: Callable[..., Any], params: Any, state: Any, rng: Any, batch: Any, *, training: bool
    ) -> tuple[Any, Any]:
        call = nn.apply(called(function, training), module, mutable=list(state) if training else False)
        made = call({_PARAMS: params, **state}, batch, rngs=keys(rng) if training else None)
        if not training:
            return made, state
        result, after = made
        return result, {**state, **after}

    def own(params: Any, state: Any) -> Any:
        return {_PARAMS: params, **state}

    return adapted(init=init, apply=apply, loss=loss, example_batch=example_batch, own=own, fields=fields)


def from_nnx(
    make: Callable[[Any], Any], loss: Callable[[Any, Any], jax.Array], example_batch: Any, **fields: Any
) -> Model:
    """A model of a `flax.nnx` module.

    Variables of the kind `nnx.Param` are the parameters. All others are the model's state: running averages, and the
    keys and counters of the module's own random streams, which start from the key of `init`.

    Args:
      make: makes the module from an `nnx.Rngs`: `lambda rngs: Net(rngs=rngs)`.
      loss: `loss(module, batch) -> scalar`, the mean over the batch's examples. The module is in training mode
        (`module.train()`) in a step, and in `module.eval()` in evaluation.
      example_batch: a batch of any size, or its shapes and dtypes.
      **fields: of `Model`: `metrics` and `predict`, functions of the module and a batch likewise, `unit`, `classes`.

    Raises:
      SonewError: flax is not installed.
    """
    nnx = library("flax.nnx", "flax")
    graph, *shapes = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(jax.random.key(0)))), nnx.Param, ...)

    def init(key: jax.Array) -> tuple[Any, Any]:
        _, params, state = nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

    def merged(params: Any, state: Any) -> Any:
        parts = []
        for shape, values in zip(shapes, (params, state), strict=True):
            part = jax.tree.map(lambda x: x, shape)
            nnx.replace_by_pure_dict(part, values)
            parts.append(part)
        return nnx.merge(graph, *parts)

    def apply(
        function: Callable[..., Any], params: Any, state: Any, rng: Any, batch: Any, *, training: bool
    ) -> tuple[Any, Any]:
        module = merged(params, state)
        if training:
            module.train()
        else:
            module.eval()
        result = function(module, batch)
        _, _, after = nnx.split(module, nnx.Param, ...)
        return result, nnx.to_pure_dict(after) if training else state

    return adapted(init=init, apply=apply, loss=loss, example_batch=example_batch, own=merged, fields=fields)
