"""Autoencoders of MNIST: the deep one of the paper's benchmark, and a shallow one that compiles in less time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.models._model import Model

WIDTHS = (784, 1000, 500, 250, 30, 250, 500, 1000, 784)
"""The widths of the paper's autoencoder, which has 2,837,314 parameters."""

SMALL_WIDTHS = (784, 1000, 30, 1000, 784)
"""The widths of the shallow autoencoder, which has 1,630,814 parameters."""

Params = dict[str, dict[str, jax.Array]]
Batch = dict[str, jax.Array]


def _of_widths(widths: tuple[int, ...]) -> Model:
    """The autoencoder with a layer between each two widths; the middle width is that of the code."""

    def init(key: jax.Array) -> Params:
        """For each layer, a Glorot-uniform kernel of shape (in, out) and a zero bias of shape (out,), in float32."""
        glorot = jax.nn.initializers.glorot_uniform()
        keys = jax.random.split(key, len(widths) - 1)
        return {
            f"layer{i}": {"kernel": glorot(k, (n_in, n_out), jnp.float32), "bias": jnp.zeros((n_out,), jnp.float32)}
            for i, (k, n_in, n_out) in enumerate(zip(keys, widths[:-1], widths[1:], strict=True))
        }

    def logits(params: Params, image: jax.Array) -> jax.Array:
        """The reconstruction before the sigmoid, (batch, 784); tanh follows every layer but the code and the output."""
        x = image
        linear = (len(widths) // 2 - 1, len(widths) - 2)
        for i in range(len(widths) - 1):
            layer = params[f"layer{i}"]
            x = x @ layer["kernel"] + layer["bias"]
            x = x if i in linear else jnp.tanh(x)
        return x

    def loss(params: Params, batch: Batch) -> jax.Array:
        """The sigmoid cross-entropy against pixels in [0, 1], summed over 784 pixels, in nats; a mean over examples."""
        image = batch["image"]
        return jnp.mean(jnp.sum(optax.sigmoid_binary_cross_entropy(logits(params, image), image), axis=-1))

    def predict(params: Params, batch: Batch) -> jax.Array:
        """The reconstruction, (batch, 784) in [0, 1]."""
        return jax.nn.sigmoid(logits(params, batch["image"]))

    def batch(size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Images of 784 pixels in [0, 1], float32."""
        return {"image": jax.ShapeDtypeStruct((size, widths[0]), jnp.float32)}

    return Model(init=init, loss=loss, predict=predict, batch=batch, unit="nats an image")


autoencoder = _of_widths(WIDTHS)
autoencoder_small = _of_widths(SMALL_WIDTHS)
