"""Products that read one activation of sequences in two ways, against NumPy in float64.

IREE refuses the activation's kernel if both products keep their axes and the sizes are at least these.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def test_gradients_of_an_embedding_that_is_tied_to_its_logits(on_iree: Callable[..., list[Any]]) -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(128, 64)).astype(np.float32)
    tokens, labels = rng.integers(0, 128, (2, 4, 48)).astype(np.int32)

    def gradient(table: Any, tokens: Any, labels: Any) -> Any:
        def loss(table: Any) -> Any:
            logits = jnp.tanh(table[tokens]) @ table.T
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1))

        return jax.grad(loss)(table)

    (got,) = on_iree(gradient, table, tokens, labels)
    wide = table.astype(np.float64)
    hidden = np.tanh(wide[tokens]).reshape(-1, 64)
    scores = np.exp(hidden @ wide.T)
    wrong = (scores / scores.sum(axis=1, keepdims=True) - np.eye(128)[labels.reshape(-1)]) / labels.size
    want = wrong.T @ hidden
    np.add.at(want, tokens.reshape(-1), wrong @ wide * (1 - hidden * hidden))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
