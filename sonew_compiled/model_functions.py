"""A model's functions, called alike whatever they take: docs/reference/models.md has the contract."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sonew_compiled.contract import COUNT, SUM
from sonew_compiled.errors import UsageError

_RNG = "rng"
_STATE = "state"

# The first words of the keys that steps and evaluations start from. `jax.random.key(seed)`, from which `init` starts,
# has zero there.
_OF_STEPS, _OF_EVALUATION = 0x534F4E45, 0x4556414C


def step_key(seed: Any, step: Any) -> jax.Array:
    """The random key that a model's `loss` is given in a step.

    Args:
      seed: the seed of the run, an integer from 0 to 2³¹ - 1 or a traced int32 scalar.
      step: the number of steps done before this one, an integer or a traced int32 scalar.
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
    """The functions of a model as its user wrote them.

    Attributes:
      init: `init(key) -> params`, or `(params, state)` where `loss` takes `state`.
      loss: `loss(params, batch)`, with `rng` and `state` by keyword where it takes them.
      eval_loss: the loss in evaluation; by default `loss`.
      predict: `predict(params, batch) -> arrays`, optional.
      metrics: `metrics(params, batch) -> {name: one number an example, or (sum, count)}`, optional.
      evaluation_draws: whether evaluation may draw, by a fixed key.
      per_example: whether the loss is a mean of losses of single examples.

    Raises:
      UsageError: on construction, where a function takes something else, or evaluation would have to draw.
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[..., Any]
    eval_loss: Callable[..., Any] | None = None
    predict: Callable[..., Any] | None = None
    metrics: Callable[..., Any] | None = None
    evaluation_draws: bool = False
    per_example: bool = True

    def __post_init__(self) -> None:
        for name, function, accepted in (
            ("loss", self.loss, (_RNG, _STATE)),
            ("eval_loss", self.eval_loss, (_RNG, _STATE)),
            ("predict", self.predict, (_STATE,)),
            ("metrics", self.metrics, (_STATE,)),
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
        if self.has_state and self.per_example and self.eval_loss is None:
            raise UsageError(
                "loss takes state, and evaluation would call it with one example at a time, where statistics of a "
                "batch mean nothing; give the model an eval_loss(params, batch, *, state), or per_example=False for "
                "whole batches"
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

    def evaluation(self, params: Any, state: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        """The loss and the metrics, float32: of each example of a batch alone, or of the batch as a whole.

        Raises:
          UsageError: `metrics` gives something else than its contract says.
        """
        size = jax.tree.leaves(batch)[0].shape[0]
        draws = self.evaluation_draws and _RNG in _keywords(self._evaluated)

        def of_example(example: Any, rng: Any) -> Any:
            return self._evaluation(params, state, jax.tree.map(lambda x: x[None], example), rng, shape=(1,))

        if self.per_example:
            keys = (
                jax.vmap(functools.partial(jax.random.fold_in, evaluation_key()))(jnp.arange(size)) if draws else None
            )
            made = jax.vmap(of_example)(batch, keys)
        else:
            made = self._evaluation(params, state, batch, evaluation_key() if draws else None, shape=(size,))
        loss, metrics = jax.tree.map(lambda x: x.astype(jnp.float32), made)
        return loss, metrics

    def _evaluation(self, params: Any, state: Any, batch: Any, rng: Any, *, shape: tuple[int]) -> Any:
        function = self._evaluated
        given = {} if rng is None else {_RNG: rng}
        loss = function(params, batch, **given, **self._state_for(function, state))
        if self.has_state and (self.eval_loss is None or self.eval_loss is self.loss):
            loss = loss[0]
        if self.metrics is None:
            return loss, {}
        return loss, _named(self.metrics(params, batch, **self._state_for(self.metrics, state)), shape)

    def prediction(self, params: Any, state: Any, batch: Any) -> Any:
        """The result of `predict`."""
        assert self.predict is not None
        return self.predict(params, batch, **self._state_for(self.predict, state))

    def _state_for(self, function: Callable[..., Any], state: Any) -> dict[str, Any]:
        return {_STATE: state} if self.has_state and _STATE in _keywords(function) else {}


def _named(metrics: Any, shape: tuple[int]) -> dict[str, jax.Array]:
    """The results of `metrics` for a batch of this shape, by names; for a single example all are scalars."""
    named: dict[str, jax.Array] = {}
    for name, value in (metrics if isinstance(metrics, dict) else {"": metrics}).items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name) or name == "loss":
            raise UsageError(f"metrics gives {name!r}; it must give a dict by names of letters, digits and _, not loss")
        is_pair = isinstance(value, tuple) and len(value) == 2
        parts = dict(zip((f"{name}{SUM}", f"{name}{COUNT}"), value, strict=True)) if is_pair else {name: value}
        wanted = () if is_pair else shape
        for part, each in parts.items():
            array = jnp.asarray(each) if isinstance(each, jax.Array | np.ndarray | np.generic | int | float) else None
            is_one = array is not None and array.size == 1 and (is_pair or shape == (1,))
            if array is None or not (array.shape == wanted or is_one) or array.dtype.kind == "c":
                shown = repr(each) if array is None else f"{array.dtype}{list(array.shape)}"
                raise UsageError(
                    f"metrics gives {name} as {shown}; give one number an example, or (sum, count) of the batch"
                )
            named[part] = array.reshape(()) if is_one else array
    return named


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
