"""A variational autoencoder in haiku, for MNIST's digits; 324,000 parameters.

In the folder of this file:

    sonew run --model vae:model --optimizer adam --batch-size 100 --epochs 2
"""

from __future__ import annotations

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from sonew_compiled.models import from_haiku

SIDE, HIDDEN, LATENT = 28, 200, 16


def forward(image: jax.Array, is_training: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The logits of the pixels (batch, 784), and the means and log-variances of the code (batch, 16).

    The decoder is given a draw of the code in training, and its mean in evaluation.
    """
    x = jax.nn.relu(hk.Linear(HIDDEN)(image.reshape(-1, SIDE * SIDE)))
    mean, log_variance = jnp.split(hk.Linear(2 * LATENT)(x), 2, axis=-1)
    noise = jax.random.normal(hk.next_rng_key(), mean.shape) if is_training else 0.0
    code = mean + jnp.exp(0.5 * log_variance) * noise
    return hk.Linear(SIDE * SIDE)(jax.nn.relu(hk.Linear(HIDDEN)(code))), mean, log_variance


def loss(network: Any, batch: Any) -> jax.Array:
    """The negative evidence lower bound, mean over examples; in nats."""
    image = batch["image"].reshape(-1, SIDE * SIDE)
    logits, mean, log_variance = network(batch["image"])
    missed = jnp.sum(jax.nn.softplus(logits) - image * logits, axis=-1)
    divergence = 0.5 * jnp.sum(jnp.exp(log_variance) + mean**2 - 1 - log_variance, axis=-1)
    return jnp.mean(missed + divergence)


def predict(network: Any, batch: Any) -> jax.Array:
    """The images that the means of their codes give."""
    return jax.nn.sigmoid(network(batch["image"])[0]).reshape(-1, SIDE, SIDE)


model = from_haiku(
    forward,
    loss,
    {"image": jax.ShapeDtypeStruct((2, SIDE, SIDE), jnp.float32)},
    predict=predict,
    unit="nats an image",
)
