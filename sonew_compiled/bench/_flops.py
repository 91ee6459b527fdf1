"""How many floating-point operations a step takes, as XLA counts them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.bench._plan import Run
from sonew_compiled.models import Model
from sonew_compiled.optimizer import optimizer_factory


def step_flops(model: Model, run: Run) -> float:
    """Operations of the loss, its gradients and the update, of the float32 program before any optimization."""
    make = optimizer_factory(run.optimizer)

    def step(params: Any, state: Any, batch: Any, rate: Any) -> Any:
        loss, grads = jax.value_and_grad(model.loss)(params, batch)
        updates, state = make(rate).update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    params = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32")))
    state = jax.eval_shape(make(0.0).init, params)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    analysis: Any = jax.jit(step).lower(params, state, model.batch(run.batch_size), rate).cost_analysis()
    return float((analysis or {}).get("flops", 0.0))
