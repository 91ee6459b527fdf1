"""ResNet-18 for images of 28 by 28 pixels in ten classes, with 16 to 128 channels: 700,000 parameters.

As in the paper (https://arxiv.org/abs/1512.03385) four stages of two blocks with two convolutions each; the first
convolution has a window of 3 by 3 and no pooling follows it, as for small images. Groups of channels are normalised
instead of batches (https://arxiv.org/abs/1803.08494), so that the model has no state.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from sonew_compiled.models.classifier import CLASSES, image_classifier

CHANNELS = (16, 32, 64, 128)
BLOCKS = 2
GROUPS = 8

Params = dict[str, Any]
Layer = dict[str, jax.Array]


def _strides() -> dict[str, tuple[int, int, int]]:
    """The channels in and out of each block and its stride, by name."""
    blocks: dict[str, tuple[int, int, int]] = {}
    before = CHANNELS[0]
    for stage, channels in enumerate(CHANNELS):
        for index in range(BLOCKS):
            blocks[f"block{len(blocks)}"] = (before, channels, 2 if stage and not index else 1)
            before = channels
    return blocks


def init(key: jax.Array) -> Params:
    """He-normal kernels of shape (3, 3, in, out), (1, 1, in, out) and (in, out); gains of one, and biases of zero."""
    he = jax.nn.initializers.he_normal()
    keys = iter(jax.random.split(key, 3 * len(_strides()) + 2))

    def conv(size: int, before: int, after: int) -> Layer:
        return {
            "kernel": he(next(keys), (size, size, before, after), jnp.float32),
            "gain": jnp.ones(after),
            "bias": jnp.zeros(after),
        }

    params: Params = {"stem": conv(3, 1, CHANNELS[0])}
    for name, (before, after, stride) in _strides().items():
        params[name] = {"first": conv(3, before, after), "second": conv(3, after, after)}
        if stride != 1:
            params[name]["shortcut"] = conv(1, before, after)
    kernel = he(next(keys), (CHANNELS[-1], CLASSES), jnp.float32)
    return params | {"dense": {"kernel": kernel, "bias": jnp.zeros(CLASSES)}}


def _convolved(x: jax.Array, layer: Layer, stride: int = 1) -> jax.Array:
    """A convolution and the normalisation of its groups of channels."""
    x = jax.lax.conv_general_dilated(
        x, layer["kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    groups = x.reshape(*x.shape[:3], GROUPS, -1)
    mean = groups.mean(axis=(1, 2, 4), keepdims=True)
    variance = jnp.square(groups - mean).mean(axis=(1, 2, 4), keepdims=True)
    return ((groups - mean) * jax.lax.rsqrt(variance + 1e-5)).reshape(x.shape) * layer["gain"] + layer["bias"]


def logits(params: Params, image: jax.Array) -> jax.Array:
    """The scores before the softmax, (batch, 10), of images (batch, 28, 28, 1)."""
    x = jax.nn.relu(_convolved(image, params["stem"]))
    for name, (_, _, stride) in _strides().items():
        block = params[name]
        y = jax.nn.relu(_convolved(x, block["first"], stride))
        y = _convolved(y, block["second"])
        x = jax.nn.relu(y + (_convolved(x, block["shortcut"], stride) if "shortcut" in block else x))
    dense: Layer = params["dense"]
    return x.mean(axis=(1, 2)) @ dense["kernel"] + dense["bias"]


resnet18 = image_classifier(init, logits)
