"""What the compiler needs to know of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that `sonew compile --model package.module:attribute` can compile.

    Attributes:
      init: `init(key) -> params`, any pytree of arrays, from a JAX random key.
      loss: `loss(params, batch) -> scalar`, a mean over the examples of the batch's leading axis.
      batch: `batch(size)` gives the shapes and dtypes of a batch, a dict of `jax.ShapeDtypeStruct` by field name. The
        runtime binds the data set's arrays to the fields by these names (`image`, `label`).
      predict: `predict(params, batch) -> array`, optional; `sonew reconstruct` needs one that returns images.
      classes: of fields that are labels, the number of classes; other labels than 0 to one less are refused.
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[[Any, Any], jax.Array]
    batch: Callable[[int], Any]
    predict: Callable[[Any, Any], jax.Array] | None = None
    classes: Mapping[str, int] = field(default_factory=dict)
