"""Two small transformers: a GPT on bytes of text, and a vision transformer of images of 28 by 28 pixels.

Both have four pre-norm blocks of width 128 with four heads, as in https://openai.com/research/better-language-models
and https://arxiv.org/abs/2010.11929, and no dropout.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.models._model import Model
from sonew_compiled.models.classifier import CLASSES, SIDE, image_classifier

WIDTH, HEADS, BLOCKS = 128, 4, 4
BYTES, LENGTH = 256, 64
PATCH = 7
PATCHES = (SIDE // PATCH) ** 2

Params = dict[str, Any]
Layer = dict[str, jax.Array]
Batch = dict[str, jax.Array]

_normal = jax.nn.initializers.normal(0.02)


def _norm_init() -> Layer:
    return {"gain": jnp.ones(WIDTH), "bias": jnp.zeros(WIDTH)}


def _dense_init(key: jax.Array, before: int, after: int) -> Layer:
    return {"kernel": _normal(key, (before, after), jnp.float32), "bias": jnp.zeros(after)}


def _blocks_init(key: jax.Array) -> Params:
    keys = jax.random.split(key, (BLOCKS, 4))
    return {
        f"block{index}": {
            "norm1": _norm_init(),
            "attention": _dense_init(each[0], WIDTH, 3 * WIDTH),
            "projection": _dense_init(each[1], WIDTH, WIDTH),
            "norm2": _norm_init(),
            "wide": _dense_init(each[2], WIDTH, 4 * WIDTH),
            "narrow": _dense_init(each[3], 4 * WIDTH, WIDTH),
        }
        for index, each in enumerate(keys)
    } | {"norm": _norm_init()}


def _dense(x: jax.Array, layer: Layer) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"]


def _normed(x: jax.Array, layer: Layer) -> jax.Array:
    mean = x.mean(axis=-1, keepdims=True)
    variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * layer["gain"] + layer["bias"]


def _attended(x: jax.Array, block: dict[str, Layer], *, is_causal: bool) -> jax.Array:
    batch, length, _ = x.shape
    parts = _dense(x, block["attention"]).reshape(batch, length, 3, HEADS, WIDTH // HEADS)
    query, key, value = (parts[:, :, index].transpose(0, 2, 1, 3) for index in range(3))
    scores = query @ key.transpose(0, 1, 3, 2) / jnp.sqrt(WIDTH / HEADS)
    if is_causal:
        scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -1e9)
    mixed = (jax.nn.softmax(scores) @ value).transpose(0, 2, 1, 3)
    return _dense(mixed.reshape(batch, length, WIDTH), block["projection"])


def _transformed(x: jax.Array, params: Params, *, is_causal: bool) -> jax.Array:
    for index in range(BLOCKS):
        block = params[f"block{index}"]
        x = x + _attended(_normed(x, block["norm1"]), block, is_causal=is_causal)
        x = x + _dense(jax.nn.gelu(_dense(_normed(x, block["norm2"]), block["wide"])), block["narrow"])
    return _normed(x, params["norm"])


def _gpt_init(key: jax.Array) -> Params:
    """Weights of standard deviation 0.02, gains of one, and biases of zero; the embedding also makes the scores."""
    words, places, blocks = jax.random.split(key, 3)
    embedding = _normal(words, (BYTES, WIDTH), jnp.float32)
    return {"embedding": embedding, "places": _normal(places, (LENGTH, WIDTH), jnp.float32)} | _blocks_init(blocks)


def gpt_logits(params: Params, tokens: jax.Array) -> jax.Array:
    """The scores of each next byte, (batch, length, 256), of bytes (batch, length)."""
    x = params["embedding"][tokens] + params["places"][: tokens.shape[1]]
    embedding: jax.Array = params["embedding"]
    return _transformed(x, params, is_causal=True) @ embedding.T


def _gpt_loss(params: Params, batch: Batch) -> jax.Array:
    """The cross-entropy of each byte given those before it, in nats; a mean over bytes and examples."""
    tokens = batch["tokens"]
    scores = gpt_logits(params, tokens[:, :-1])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, tokens[:, 1:]))


def _gpt_predict(params: Params, batch: Batch) -> jax.Array:
    """The probability of each byte given those before it, (batch, 64, 256); the first byte has none."""
    return jax.nn.softmax(gpt_logits(params, batch["tokens"][:, :-1]))


def _texts(size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Pieces of text of 65 bytes, as int32."""
    return {"tokens": jax.ShapeDtypeStruct((size, LENGTH + 1), jnp.int32)}


def _vit_init(key: jax.Array) -> Params:
    """Weights of standard deviation 0.02, gains of one, and biases of zero."""
    patches, places, head, blocks = jax.random.split(key, 4)
    return {
        "patches": _dense_init(patches, PATCH * PATCH, WIDTH),
        "places": _normal(places, (PATCHES, WIDTH), jnp.float32),
        "head": _dense_init(head, WIDTH, CLASSES),
    } | _blocks_init(blocks)


def vit_logits(params: Params, image: jax.Array) -> jax.Array:
    """The scores before the softmax, (batch, 10), of images (batch, 28, 28, 1)."""
    side = SIDE // PATCH
    patches = image.reshape(-1, side, PATCH, side, PATCH).transpose(0, 1, 3, 2, 4).reshape(-1, PATCHES, PATCH * PATCH)
    x = _transformed(_dense(patches, params["patches"]) + params["places"], params, is_causal=False)
    return _dense(x.mean(axis=1), params["head"])


gpt_small = Model(
    init=_gpt_init,
    loss=_gpt_loss,
    predict=_gpt_predict,
    batch=_texts,
    unit="nats a byte",
    classes={"tokens": BYTES},
)
vit_small = image_classifier(_vit_init, vit_logits)
