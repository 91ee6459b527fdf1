"""Training under `jax.jit` by the runtime's protocol, for comparison with the compiled step.

For the same seed it has the same initial weights, order of the data, schedule and losses as `sonew run`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sonew_compiled.backward import backward_with_state, gradient_point, loss_and_signals
from sonew_compiled.bench._plain import check_plain
from sonew_compiled.exponential_average import first_average, next_average, weights_of
from sonew_compiled.held import Held, joined
from sonew_compiled.model_functions import ModelFunctions, step_key
from sonew_compiled.models import Model
from sonew_compiled.optimizer import optimizer_factory, statistics_dtype, with_step_settings
from sonew_compiled.passes import precision_policy
from sonew_compiled.presets import OptimizerSettings
from sonew_compiled.runtime import BoundData
from sonew_compiled.step_settings import PLAIN, StepSettings

State = tuple[Any, Any, Any, Any]
"""The parameters, the state of the optimizer, the averages of the parameters or None, and a pair of what the loss keeps
or None, and the seed and the number of steps done or None."""

# The dtypes in which a JAX user would compute the loss and the update under each policy. The policy itself gives the
# dtype of the stored state.
_COMPUTED = {
    "f32": (jnp.float32, jnp.float32),
    "bf16": (jnp.bfloat16, jnp.float32),
    "bf16-pure": (jnp.bfloat16, jnp.bfloat16),
    "bf16-mixed": (jnp.bfloat16, jnp.float32),
    "f16-mixed": (jnp.float16, jnp.float32),
    "bf16-sr": (jnp.bfloat16, jnp.float32),
}

# Optimizers that look into the model find its layers with a batch of this size; the layers do not depend on it.
_ANY_SIZE = 2


class JaxTraining:
    """A model and an optimizer under `jax.jit`; the learning rate is an input, so one compilation serves every rate."""

    def __init__(
        self,
        model: Model,
        optimizer: OptimizerSettings,
        *,
        precision: str = "f32",
        settings: StepSettings = PLAIN,
    ) -> None:
        """Compiles nothing yet.

        Args:
          model: the model to train.
          optimizer: its settings.
          precision: a policy's name. The state is stored as the policy says. The loss is computed on parameters and a
            batch cast to 16 bits, the update in float32 (`bf16-pure`: in bfloat16). There is no stochastic rounding and
            no loss scaling, as in a few lines of JAX.
          settings: what a step does besides the optimizer.
        """
        policy = precision_policy(precision)
        compute, wide = _COMPUTED[precision]
        made = ModelFunctions(
            init=model.init,
            loss=model.loss,
            eval_loss=model.eval_loss,
            evaluation_draws=model.evaluation_draws,
            per_example=model.per_example,
        )

        def narrow_loss(params: Any, batch: Any) -> Any:
            return model.loss(_cast(params, compute), _cast(batch, compute)).astype(jnp.float32)

        make = with_step_settings(
            optimizer_factory(optimizer, loss=narrow_loss, batch=model.batch(_ANY_SIZE)), settings, optimizer.name
        )
        held, ema = Held(settings.freeze), settings.ema

        def store(params: Any, inner: Any, average: Any, others: Any) -> State:
            return _cast(params, policy.parameter_dtype), _cast(inner, policy.state_dtype), average, others

        def evaluated(state: State) -> Any:
            params, _, average, _ = state
            return params if average is None else joined(weights_of(average), held.split(params)[1])

        @jax.jit
        def init(seed: Any) -> State:
            params, kept = made.first(jax.random.key(seed, impl="threefry2x32"))
            trained, _ = held.split(_cast(params, wide))
            average = None if ema is None else first_average(trained)
            return store(params, make(0.0).init(trained), average, (kept, (seed, 0) if made.takes_rng else None))

        @functools.partial(jax.jit, donate_argnums=(0,))
        def step(state: State, batch: Any, learning_rate: Any) -> tuple[State, Any]:
            params, inner, average, (kept, drawn) = state
            (moved, rest), inner = held.split(_cast(params, wide)), _cast(inner, wide)

            def loss_of(trained: Any, batch: Any) -> Any:
                return narrow_loss(joined(trained, rest), batch)

            def loss_and_state(trained: Any, kept: Any, rng: Any, batch: Any) -> tuple[Any, Any]:
                narrow = _cast(joined(trained, rest), compute)
                value, after = made.train_loss(narrow, kept, rng, _cast(batch, compute))
                return value.astype(jnp.float32), after

            with statistics_dtype(policy.state_dtype):
                transformation = make(learning_rate)
                if made.has_state or made.takes_rng:
                    point = gradient_point(transformation, moved, inner)
                    rng = step_key(*drawn) if drawn else None
                    one = jnp.ones((), jnp.float32)
                    loss, signals, kept = backward_with_state(loss_and_state, point, kept, rng, batch, one)
                else:
                    loss, signals = loss_and_signals(transformation, loss_of, moved, inner, batch)
                updates, inner = transformation.update(_cast(signals, wide), inner, moved)
            moved = optax.apply_updates(moved, updates)
            stored, inner, *_ = store(moved, inner, None, None)
            average = None if ema is None else next_average(average, stored, ema)
            others = kept, (drawn[0], drawn[1] + 1) if drawn else None
            return (joined(stored, held.split(params)[1]), inner, average, others), loss

        @jax.jit
        def losses(state: State, batch: Any) -> Any:
            narrow = _cast(evaluated(state), compute)
            each = jax.vmap(lambda x: model.loss(narrow, _cast(jax.tree.map(lambda a: a[None], x), compute)))(batch)
            return each.astype(jnp.float32)

        self._model, self._init, self._step, self._losses = model, init, step, losses

    def init(self, seed: int) -> State:
        """Parameters and optimizer state at step 0."""
        state: State = self._init(seed)
        return state

    def step(self, state: State, batch: Any, learning_rate: float) -> tuple[State, Any]:
        """Does one step, and returns the new state and the loss before it, a float32 scalar on the device.

        The buffers of `state` are donated.
        """
        result: tuple[State, Any] = self._step(state, batch, np.float32(learning_rate))
        return result

    def mean_loss(self, state: State, data: BoundData) -> float:
        """The mean loss over all examples.

        Raises:
          UsageError: the loss is no mean over examples of parameters and a batch alone.
        """
        check_plain(self._model)
        losses = [np.asarray(self._losses(state, batch))[:valid] for batch, valid in data.evaluation_batches()]
        return float(np.concatenate(losses).mean(dtype=np.float64))

    def epochs(
        self,
        state: State,
        data: BoundData,
        *,
        seed: int,
        epochs: int,
        rate: Callable[[int], float],
    ) -> Iterator[Epoch]:
        """Trains, and yields the end of each epoch. It stops early if the loss is not finite."""
        started = time.perf_counter()
        for epoch in range(epochs):
            first = epoch * data.steps_per_epoch
            batch_losses: list[float] = []
            for index in range(first, first + data.steps_per_epoch):
                state, loss = self.step(state, data.training_batch(seed, index), rate(index))
                batch_losses.append(float(loss))
                if not math.isfinite(batch_losses[-1]):
                    break
            mean = sum(batch_losses) / len(batch_losses)
            yield Epoch(
                epoch=epoch + 1,
                steps=first + len(batch_losses),
                loss=mean,
                seconds=time.perf_counter() - started,
                state=state,
            )
            if not math.isfinite(mean):
                return


@dataclasses.dataclass(frozen=True, kw_only=True)
class Epoch:
    """The end of an epoch.

    Attributes:
      epoch: the number of the epoch, from 1.
      steps: the steps since the start.
      loss: the mean over the epoch's batches; not finite if training diverged.
      seconds: the time since the start.
      state: for `mean_loss`; the next epoch donates its buffers.
    """

    epoch: int
    steps: int
    loss: float
    seconds: float
    state: State


def _cast(tree: Any, dtype: Any) -> Any:
    """The tree with its floating-point arrays in another dtype."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
