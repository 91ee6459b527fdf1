"""A model of one's own: softmax regression of MNIST's digits, each the means of 4 by 4 pixels; 500 parameters.

In the folder of this file, with an optimizer that is only for small models:

    sonew run --model softmax:model --optimizer natural-gradient
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from sonew_compiled import Model

SIDE, POOL, CLASSES = 28, 4, 10
FEATURES = (SIDE // POOL) ** 2

Params = dict[str, jax.Array]
Batch = dict[str, jax.Array]


def init(key: jax.Array) -> Params:
    """Zeros; a convex problem needs no random start."""
    return {"kernel": jnp.zeros((FEATURES, CLASSES)), "bias": jnp.zeros(CLASSES)}


def logits(params: Params, image: jax.Array) -> jax.Array:
    """A score for each class, (batch, 10), of images of (batch, 28, 28)."""
    pooled = image.reshape(-1, SIDE // POOL, POOL, SIDE // POOL, POOL).mean((2, 4))
    return pooled.reshape(-1, FEATURES) @ params["kernel"] + params["bias"]


def loss(params: Params, batch: Batch) -> jax.Array:
    """Cross-entropy against the labels, mean over examples; in nats."""
    scores = logits(params, batch["image"])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, batch["label"]))


def batch(size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The fields of the data set that the runtime is to give, by their names, as the loss wants them."""
    return {
        "image": jax.ShapeDtypeStruct((size, SIDE, SIDE), jnp.float32),
        "label": jax.ShapeDtypeStruct((size,), jnp.int32),
    }


model = Model(init=init, loss=loss, batch=batch)
