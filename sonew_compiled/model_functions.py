"""A model's functions, called alike whatever they take: docs/models.md has the contract."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from sonew_compiled.errors import UsageError

_RNG = "rng"
_STATE = "state"

# The first words of the keys that steps and evaluations start from. `jax.random.key(seed)`, from which `init` starts,
# has zero there.
_OF_STEPS, _OF_EVALUATION = 0x534F4E45, 0x4556414C


def step_key(seed: Any, step: Any) -> jax.Array:
    """The random key that a model's `loss` is given in a step.

    Args:
      seed: of the run, an integer from 0 to 2³¹ - 1 or a traced int32 scalar.
      step: the number of steps done before this one, likewise.
    """
    key: jax.Array = jax.random.fold_in(_key(_OF_STEPS, seed), step)
    return key


def evaluation_key() -> jax.Array:
    """The random key of evaluation, where a model draws there: example `i` of a batch has `fold_in(key, i)`."""
    return _key(_OF_EVALUATION, 0)


def _key(first: int, second: Any) -> jax.Array:
    words = jnp.stack([jnp.asarray(first, jnp.uint32), jnp.asarray(second).astype(jnp.uint32)])
    key: jax.Array = jax.random.wrap_key_data(words, impl="threefry2x32")
    return key


@dataclass(frozen=True, kw_only=True)
class ModelFunctions:
    """What a model is made of, as its user wrote it.

    Attributes:
      init: `init(key) -> params`, or `(params, state)` where `loss` takes `state`.
      loss: `loss(params, batch)`, with `rng` and `state` by keyword where it takes them.
      eval_loss: what evaluation uses; by default `loss`.
      predict: optional.
      evaluation_draws: whether evaluation may draw, by a fixed key.

    Raises:
      UsageError: on construction, where a function takes something else, or evaluation would have to draw.
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[..., Any]
    eval_loss: Callable[..., Any] | None = None
    predict: Callable[..., Any] | None = None
    evaluation_draws: bool = False

    def __post_init__(self) -> None:
        for name, function, accepted in (
            ("loss", self.loss, (_RNG, _STATE)),
            ("eval_loss", self.eval_loss, (_RNG, _STATE)),
            ("predict", self.predict, (_STATE,)),
        ):
            taken = {} if function is None else _keywords(function)
            for keyword, is_needed in taken.items():
                if is_needed and keyword not in accepted:
                    raise UsageError(
                        f"{name} takes the keyword {keyword}; it may take {' and '.join(accepted)}: give the others "
                        "a default, or bind them by functools.partial"
                    )
            if _STATE in taken and taken[_STATE] and not self.has_state:
                raise UsageError(f"{name} takes state and loss does not; let loss take it and return (loss, state)")
        if _keywords(self._evaluated).get(_RNG) and not self.evaluation_draws:
            name = "loss" if self.eval_loss is None else "eval_loss"
            raise UsageError(
                f"{name} takes rng, and evaluation draws nothing; give the model an eval_loss(params, batch) without "
                "rng, or evaluation_draws=True for draws by a fixed key"
            )

    @cached_property
    def takes_rng(self) -> bool:
        """Whether a step is given a random key."""
        return _RNG in _keywords(self.loss)

    @cached_property
    def has_state(self) -> bool:
        """Whether the model keeps something from step to step that is no parameter."""
        return _STATE in _keywords(self.loss)

    @property
    def _evaluated(self) -> Callable[..., Any]:
        return self.loss if self.eval_loss is None else self.eval_loss

    def first(self, key: jax.Array) -> tuple[Any, Any]:
        """The parameters and the state, which is None for a model without.

        Raises:
          UsageError: `init` gives no state where there has to be one.
        """
        made = self.init(key)
        if not self.has_state:
            return made, None
        if not isinstance(made, tuple) or len(made) != 2:
            raise UsageError("loss takes state, and init gives no (params, state); let it give both")
        params, state = made
        return params, state

    def train_loss(self, params: Any, state: Any, rng: Any, batch: Any) -> tuple[Any, Any]:
        """The loss of a step and the state after it; `state` and `rng` are None where the model takes none.

        Raises:
          UsageError: `loss` gives no state where there has to be one.
        """
        given = {_RNG: rng} if self.takes_rng else {}
        if not self.has_state:
            return self.loss(params, batch, **given), None
        made = self.loss(params, batch, **given, **{_STATE: state})
        if not isinstance(made, tuple) or len(made) != 2:
            raise UsageError("loss takes state and does not return (loss, state); let it return both")
        value, after = made
        return value, after

    def losses(self, params: Any, state: Any, batch: Any) -> jax.Array:
        """The loss of each example of a batch alone, float32."""
        function = self._evaluated
        draws = self.evaluation_draws and _RNG in _keywords(function)
        gives_state = self.has_state and (self.eval_loss is None or self.eval_loss is self.loss)

        def example_loss(example: Any, rng: Any) -> Any:
            given = {_RNG: rng} if draws else {}
            whole = jax.tree.map(lambda x: x[None], example)
            made = function(params, whole, **given, **self._state_for(function, state))
            return made[0] if gives_state else made

        keys = None
        if draws:
            numbers = jnp.arange(jax.tree.leaves(batch)[0].shape[0])
            keys = jax.vmap(functools.partial(jax.random.fold_in, evaluation_key()))(numbers)
        losses: jax.Array = jax.vmap(example_loss)(batch, keys)
        return losses.astype(jnp.float32)

    def prediction(self, params: Any, state: Any, batch: Any) -> Any:
        """What `predict` gives."""
        assert self.predict is not None
        return self.predict(params, batch, **self._state_for(self.predict, state))

    def _state_for(self, function: Callable[..., Any], state: Any) -> dict[str, Any]:
        return {_STATE: state} if self.has_state and _STATE in _keywords(function) else {}


def _keywords(function: Callable[..., Any]) -> dict[str, bool]:
    """The keyword-only arguments of a function that are not bound, each with whether it has no default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a callable that says nothing of its arguments
        return {}
    bound = function.keywords if isinstance(function, functools.partial) else {}
    return {
        each.name: each.default is each.empty
        for each in parameters
        if each.kind is each.KEYWORD_ONLY and each.name not in bound
    }
