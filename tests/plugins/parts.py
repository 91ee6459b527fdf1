"""A bundle for micro-batches."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def parts_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled for batches of 12 examples in four micro-batches, with adam; not to be changed."""
    return compile_parts(tmp_path_factory.mktemp("bundles") / "parts", "f32", check=True)


def compile_parts(
    path: Path,
    precision: str,
    *,
    size: int = 3,
    optimizer: str = "adam",
    exchange: str = "f32",
    check: bool = False,
    step: Any = None,
    has_bias: bool = True,
    **settings: Any,
) -> Path:
    """A small autoencoder of 4 pixels for the generic CPU, in micro-batches of this many of 12 examples.

    Without the bias it has two tensors, and compiles in two thirds of the time.
    """
    import jax
    import jax.numpy as jnp

    from sonew_compiled.compile import compile_training
    from sonew_compiled.presets import optimizer_settings

    def init(key: Any) -> Any:
        inner, outer = jax.random.split(key)
        weights = {"inner": jax.random.normal(inner, (4, 6)), "outer": jax.random.normal(outer, (6, 4))}
        return {**weights, "bias": jnp.zeros(6)} if has_bias else weights

    def loss(weights: Any, batch: Any) -> Any:
        hidden = jnp.tanh(batch["image"] @ weights["inner"] + weights.get("bias", 0.0))
        return jnp.mean((hidden @ weights["outer"] - batch["image"]) ** 2)

    compile_training(
        loss,
        init,
        optimizer_settings(optimizer, precision=precision, **settings),
        {"image": jax.ShapeDtypeStruct((12, 4), jnp.float32)},
        output=path,
        precision=precision,
        micro_batch=size,
        exchange=exchange,
        model="parts",
        learning_rate=3e-3,
        check=check,
        step=step,
    )
    return path
