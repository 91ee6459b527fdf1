"""A U-Net in equinox that takes noise out of MNIST's digits; 15,000 parameters.

In the folder of this file:

    sonew run --model unet:model --optimizer adam --batch-size 100 --epochs 2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from sonew_compiled.models import from_equinox

SIDE, CHANNELS, NOISE = 28, 16, 0.5


class UNet(eqx.Module):
    """Two levels down and up again, with the features of the way down beside those of the way up."""

    first: eqx.nn.Conv2d
    down: eqx.nn.Conv2d
    deep: eqx.nn.Conv2d
    up: eqx.nn.Conv2d
    last: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    activation: Callable[[jax.Array], jax.Array]

    def __init__(self, key: jax.Array) -> None:
        """Weights from the key."""
        keys = jax.random.split(key, 5)
        self.first = eqx.nn.Conv2d(1, CHANNELS, 3, padding=1, key=keys[0])
        self.down = eqx.nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, stride=2, padding=1, key=keys[1])
        self.deep = eqx.nn.Conv2d(2 * CHANNELS, 2 * CHANNELS, 3, padding=1, key=keys[2])
        self.up = eqx.nn.Conv2d(2 * CHANNELS, CHANNELS, 1, key=keys[3])
        self.last = eqx.nn.Conv2d(2 * CHANNELS, 1, 3, padding=1, key=keys[4])
        self.norm = eqx.nn.GroupNorm(4, 2 * CHANNELS)
        self.activation = jax.nn.silu

    def __call__(self, image: jax.Array) -> jax.Array:
        """The image, (28, 28), without its noise."""
        first = self.activation(self.first(image[None]))
        deep = self.activation(self.deep(self.norm(self.activation(self.down(first)))))
        up = jnp.repeat(jnp.repeat(self.up(deep), 2, axis=1), 2, axis=2)
        return self.last(jnp.concatenate([first, up]))[0]


def loss(network: Any, batch: Any, *, key: jax.Array) -> jax.Array:
    """The squared distance to the image without noise, mean over pixels and examples.

    Evaluation gives a fixed key, and so each example the same noise.
    """
    noisy = batch["image"] + NOISE * jax.random.normal(key, batch["image"].shape)
    return jnp.mean((jax.vmap(network)(noisy) - batch["image"]) ** 2)


def predict(network: Any, batch: Any, *, key: jax.Array) -> jax.Array:
    """Images after noise was added and taken out."""
    return jax.vmap(network)(batch["image"] + NOISE * jax.random.normal(key, batch["image"].shape))


model = from_equinox(
    lambda key: UNet(key),
    loss,
    {"image": jax.ShapeDtypeStruct((2, SIDE, SIDE), jnp.float32)},
    predict=predict,
    unit="squares a pixel",
)
