"""A small GPT with dropout in flax.nnx, on bytes of the Python standard library's source; 211,000 parameters.

In the folder of this file:

    python gpt.py bytes.npz
    sonew run --model gpt:model --optimizer adam --batch-size 32 --data bytes.npz --epochs 1
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from sonew_compiled.models import from_nnx

LENGTH, WIDTH, LAYERS, HEADS, BYTES, DROPOUT = 48, 64, 4, 4, 128, 0.1


class Block(nnx.Module):
    """Causal attention and a perceptron, each after a layer norm and added to its input."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        """Weights from the streams."""
        self.before_attention = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=rngs)
        self.attended = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.before_perceptron = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.hidden = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.out = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)
        self.dropout = nnx.Dropout(DROPOUT, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Of (batch, length, width) the same shape."""
        batch, length, _ = x.shape
        q, k, v = jnp.split(self.qkv(self.before_attention(x)).reshape(batch, length, HEADS, -1), 3, axis=-1)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -1e30)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v).reshape(batch, length, WIDTH)
        x = x + self.dropout(self.attended(mixed))
        return x + self.dropout(self.out(jax.nn.gelu(self.hidden(self.before_perceptron(x)))))


class Gpt(nnx.Module):
    """Embeddings of bytes and places, blocks, and scores for the next byte."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        """Weights from the streams."""
        self.bytes = nnx.Embed(BYTES, WIDTH, rngs=rngs)
        self.places = nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(LAYERS)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)

    def __call__(self, text: jax.Array) -> jax.Array:
        """Scores (batch, length, 128) of text (batch, length)."""
        x = self.bytes(text) + self.places(jnp.arange(text.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.bytes.attend(self.norm(x))


def loss(network: Any, batch: Any) -> jax.Array:
    """Cross-entropy of the next byte, mean over bytes; in nats."""
    text = batch["text"].astype(jnp.int32)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(network(text[:, :-1]), text[:, 1:]))


model = from_nnx(
    Gpt, loss, {"text": jax.ShapeDtypeStruct((2, LENGTH + 1), jnp.uint8)}, unit="nats a byte", classes={"text": BYTES}
)


def main() -> None:
    """Writes pieces of the source as a data set; every tenth is for testing."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("output", type=Path)
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-d]*.py"))
    text = np.frombuffer(b"".join(path.read_bytes() for path in files), np.uint8)
    text = text[text < BYTES]
    pieces = text[: len(text) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)
    tested = np.arange(len(pieces)) % 10 == 9
    np.savez(parser.parse_args().output, train_text=pieces[~tested], test_text=pieces[tested])


if __name__ == "__main__":
    main()
