"""A residual network with batch norm in flax.linen, for MNIST's digits; 78,000 parameters.

In the folder of this file:

    sonew run --model resnet:model --optimizer adam --batch-size 100 --epochs 2
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from sonew_compiled.models import from_flax

CLASSES = 10


class Block(nn.Module):
    """Two convolutions with batch norm, and the input added to what they give."""

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images (batch, height, width, channels), with both sides divided by the stride."""
        strides = (self.stride, self.stride)
        y = nn.Conv(self.channels, (3, 3), strides, use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=not train)(y))
        y = nn.Conv(self.channels, (3, 3), use_bias=False)(y)
        y = nn.BatchNorm(use_running_average=not train, scale_init=nn.initializers.zeros)(y)
        if x.shape != y.shape:
            x = nn.Conv(self.channels, (1, 1), strides, use_bias=False)(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A stem with overlapping max pooling, and three stages of one block each."""

    channels: int = 16

    @nn.compact
    def __call__(self, image: jax.Array, train: bool) -> jax.Array:
        """A score for each class, (batch, 10), of images (batch, 28, 28)."""
        x = nn.Conv(self.channels, (5, 5), (1, 1), use_bias=False)(image[..., None])
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage in range(3):
            x = Block(self.channels * 2**stage, stride=1 if stage == 0 else 2)(x, train)
        return nn.Dense(CLASSES)(x.mean((1, 2)))


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

model = from_flax(ResNet(), loss, example, metrics=metrics, unit="nats an image", classes={"label": CLASSES}, rngs=())
