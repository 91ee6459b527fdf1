"""The floating-point operations of a step, as XLA counts them."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sonew_compiled.backward import loss_and_signals
from sonew_compiled.bench.plan import Run
from sonew_compiled.exponential_average import first_average, next_average
from sonew_compiled.held import Held, joined
from sonew_compiled.models import Model
from sonew_compiled.optimizer import never_due, optimizer_factory, with_step_settings


def step_flops(model: Model, run: Run) -> float:
    """The operations of the loss, its gradients and the update, in float32 and before any optimization by XLA.

    If only one step in `precond_interval` computes a new preconditioner, the count is that of the other steps.
    """
    batch = model.batch(run.batch_size)
    make = with_step_settings(
        optimizer_factory(run.optimizer, loss=model.loss, batch=batch), run.step, run.optimizer.name
    )
    ema = run.step.ema

    def step(params: Any, rest: Any, state: Any, average: Any, batch: Any, rate: Any) -> Any:
        def loss_of(trained: Any, batch: Any) -> Any:
            return model.loss(joined(trained, rest), batch)

        loss, signals = loss_and_signals(make(rate), loss_of, params, state, batch)
        updates, state = make(rate).update(signals, state, params)
        params = optax.apply_updates(params, updates)
        return params, state, None if ema is None else next_average(average, params, ema), loss

    made = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32")))
    params, rest = Held(run.step.freeze).split(made)
    state = jax.eval_shape(make(0.0).init, params)
    average = None if ema is None else jax.eval_shape(first_average, params)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    often = run.optimizer.values.get("precond_interval", 1) == 1
    with contextlib.nullcontext() if often else never_due():
        analysis: Any = jax.jit(step).lower(params, rest, state, average, batch, rate).cost_analysis()
    return float((analysis or {}).get("flops", 0.0))
