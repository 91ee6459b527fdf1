"""A model, as the compiler takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import jax


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that `sonew compile --model package.module:attribute` can compile.

    docs/reference/models.md has the contract. What a function is given is told by its keyword-only arguments.

    Attributes:
      init: `init(key) -> params`, any pytree of arrays, from a JAX random key; `(params, state)` where `loss` takes
        `state`.
      loss: `loss(params, batch) -> scalar`, a mean over the examples of the batch's leading axis. With `*, rng` it is
        given another random key in every step; with `*, state` it returns `(loss, state)`.
      batch: `batch(size)` gives the shapes and dtypes of a batch, a dict of `jax.ShapeDtypeStruct` by field name. The
        runtime binds the data set's arrays to the fields by these names (`image`, `label`).
      eval_loss: `eval_loss(params, batch) -> scalar`, with `*, state` if it reads that: the loss in evaluation. By
        default `loss` where that takes no `rng` and no `state`.
      evaluation_draws: whether evaluation may draw too, by a fixed key.
      predict: `predict(params, batch) -> arrays`, any tree of them, with `*, state` if it reads that; optional.
        `sonew reconstruct` needs one that returns images.
      metrics: `metrics(params, batch) -> {name: one number an example, or (sum, count)}`, with `*, state` if it reads
        that; optional. They are reported for both splits, as `test_accuracy`.
      per_example: False for a loss that is no mean of losses of single examples, such as a contrastive one: evaluation
        is then a mean over whole batches.
      unit: the unit of the loss in reports: "nats an image".
      classes: the number of classes of each label field, by name; labels are from 0 to one less.
      own: for a model of another library, makes that library's form of weights from the parameters and the state;
        `sonew_compiled.model_weights` gives them.
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[..., Any]
    batch: Callable[[int], Any]
    eval_loss: Callable[..., jax.Array] | None = None
    evaluation_draws: bool = False
    predict: Callable[..., Any] | None = None
    metrics: Callable[..., Any] | None = None
    per_example: bool = True
    unit: str = ""
    classes: Mapping[str, int] = field(default_factory=dict)
    own: Callable[[Any, Any], Any] | None = None

    def functions(self, **others: Any) -> dict[str, Any]:
        """The keyword arguments of `compile_training`, some replaced: all fields but `batch` and `own`."""
        taken = [each.name for each in fields(self) if each.name not in ("batch", "own")]
        return {name: getattr(self, name) for name in taken} | others
