"""An LSTM in flax.linen that reads MNIST's digits row by row; 24,000 parameters.

In the folder of this file:

    sonew run --model lstm:model --optimizer adam --batch-size 100 --epochs 2
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from sonew_compiled.models import from_flax

HIDDEN, CLASSES = 64, 10


class Reader(nn.Module):
    """An LSTM over the rows of an image, and scores from its last state."""

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """A score for each class, (batch, 10), of images (batch, 28, 28)."""
        rows = nn.RNN(nn.OptimizedLSTMCell(HIDDEN))(image)
        return nn.Dense(CLASSES)(rows[:, -1])


def loss(network: Any, batch: Any) -> jax.Array:
    """Cross-entropy against the labels, mean over examples; in nats."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(network(batch["image"]), batch["label"]))


def metrics(network: Any, batch: Any) -> dict[str, jax.Array]:
    """Whether the digit with the largest score is right."""
    return {"accuracy": network(batch["image"]).argmax(-1) == batch["label"]}


example = {
    "image": jax.ShapeDtypeStruct((2, 28, 28), jnp.float32),
    "label": jax.ShapeDtypeStruct((2,), jnp.int32),
}

model = from_flax(Reader(), loss, example, metrics=metrics, unit="nats an image", classes={"label": CLASSES}, rngs=())
