"""A small convolutional classifier of 28 by 28 images into ten classes: 20,490 parameters."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.models._model import Model

SIDE = 28
CLASSES = 10
CHANNELS = (1, 16, 32)

Params = dict[str, dict[str, jax.Array]]
Batch = dict[str, jax.Array]


def init(key: jax.Array) -> Params:
    """He-normal kernels of shape (3, 3, in, out) and (in, out), and zero biases of shape (out,), in float32."""
    he = jax.nn.initializers.he_normal()
    side = SIDE // 2 ** (len(CHANNELS) - 1)
    shapes: dict[str, tuple[int, ...]] = {
        f"conv{i}": (3, 3, *pair) for i, pair in enumerate(itertools.pairwise(CHANNELS))
    }
    shapes["dense"] = (side * side * CHANNELS[-1], CLASSES)
    return {
        name: {"kernel": he(k, shape, jnp.float32), "bias": jnp.zeros(shape[-1:], jnp.float32)}
        for (name, shape), k in zip(shapes.items(), jax.random.split(key, len(shapes)), strict=True)
    }


def logits(params: Params, image: jax.Array) -> jax.Array:
    """The scores before the softmax, (batch, 10), of two convolutions of stride 2 with ReLU and a dense layer."""
    x = image
    for i in range(len(CHANNELS) - 1):
        layer = params[f"conv{i}"]
        x = jax.lax.conv_general_dilated(
            x, layer["kernel"], window_strides=(2, 2), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + layer["bias"])
    dense = params["dense"]
    return x.reshape(x.shape[0], -1) @ dense["kernel"] + dense["bias"]


def batch(size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Images of 28 by 28 pixels in [0, 1], float32, and their classes, int32."""
    return {
        "image": jax.ShapeDtypeStruct((size, SIDE, SIDE, 1), jnp.float32),
        "label": jax.ShapeDtypeStruct((size,), jnp.int32),
    }


def image_classifier(init: Callable[[jax.Array], Any], logits: Callable[[Any, jax.Array], jax.Array]) -> Model:
    """The classifier of images in ten classes by scores.

    Args:
      init: `init(key) -> params`.
      logits: `logits(params, image)`, the scores before the softmax, (batch, 10).
    """

    def loss(params: Any, batch: Batch) -> jax.Array:
        """The softmax cross-entropy against the labels, in nats; a mean over examples."""
        scores = logits(params, batch["image"])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, batch["label"]))

    def predict(params: Any, batch: Batch) -> jax.Array:
        """The probability of each class, (batch, 10)."""
        return jax.nn.softmax(logits(params, batch["image"]))

    def metrics(params: Any, batch: Batch) -> dict[str, jax.Array]:
        """Whether the largest score is that of the label, (batch,)."""
        return {"accuracy": jnp.argmax(logits(params, batch["image"]), axis=-1) == batch["label"]}

    return Model(
        init=init,
        loss=loss,
        predict=predict,
        metrics=metrics,
        batch=batch,
        unit="nats an image",
        classes={"label": CLASSES},
    )


classifier = image_classifier(init, logits)
