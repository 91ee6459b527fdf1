"""A model of one's own: a perceptron for MNIST's digits, each the means of 4 by 4 pixels; 730 parameters.

In the folder of this file, with an optimizer that is only for small models:

    sonew run --model perceptron:model --optimizer natural-gradient
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from sonew_compiled import Model

SIDE, POOL, HIDDEN, CLASSES = 28, 4, 12, 10
FEATURES = (SIDE // POOL) ** 2

Params = dict[str, dict[str, jax.Array]]
Batch = dict[str, jax.Array]


def init(key: jax.Array) -> Params:
    """Two dense layers, kernels of variance 1 / inputs."""
    normal = jax.nn.initializers.lecun_normal()
    hidden, out = jax.random.split(key)
    return {
        "hidden": {"kernel": normal(hidden, (FEATURES, HIDDEN)), "bias": jnp.zeros(HIDDEN)},
        "out": {"kernel": normal(out, (HIDDEN, CLASSES)), "bias": jnp.zeros(CLASSES)},
    }


def logits(params: Params, image: jax.Array) -> jax.Array:
    """A score for each class, (batch, 10), of images of (batch, 28, 28)."""
    pooled = image.reshape(-1, SIDE // POOL, POOL, SIDE // POOL, POOL).mean((2, 4))
    hidden = jnp.tanh(pooled.reshape(-1, FEATURES) @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


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
