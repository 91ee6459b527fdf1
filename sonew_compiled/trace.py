"""A model and an optimizer, traced from JAX into one StableHLO module of named functions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import ClosedJaxpr

from sonew_compiled import contract
from sonew_compiled.backward import backward_pass, backward_with_state, gradient_point, own_backward
from sonew_compiled.contract import Role
from sonew_compiled.errors import UsageError
from sonew_compiled.exponential_average import check_average, evaluated_params, evaluated_state, next_average
from sonew_compiled.held import Held, joined
from sonew_compiled.jax_settings import pinned_settings
from sonew_compiled.labelled import Label, inner_module, labels, trace_labelled
from sonew_compiled.model_functions import ModelFunctions
from sonew_compiled.rate_in_state import RateInState, refuse_settings
from sonew_compiled.recurrence import dependents, recurrences
from sonew_compiled.requirements import (
    check_batch,
    check_decays,
    check_gradients,
    check_loss,
    check_parameters,
    check_state,
    check_update,
    checked_model_state,
    names_of,
    slowest_decay,
)
from sonew_compiled.scaled_loss import check_proportional, drawn_batch, has_own_derivatives
from sonew_compiled.training_state import first_state, first_trained, init_key, other_state, random_key, trained_part

_PARAMS = Role.PARAMETER.root
_OPTIMIZER = Role.OPTIMIZER.root
_MODEL_STATE = Role.MODEL_STATE.root
_AVERAGE = Role.AVERAGE.root

_SEED = jax.ShapeDtypeStruct((), jnp.int32)
_SCALAR = jax.ShapeDtypeStruct((), jnp.float32)

OptimizerFactory = Callable[..., optax.GradientTransformation]


_SEED_LABEL = Label(contract.SEED, Role.SEED)
_RATE_LABEL = Label(contract.LEARNING_RATE, Role.LEARNING_RATE)


@dataclass(frozen=True, kw_only=True)
class Traced:
    """The result of `trace_training`.

    Attributes:
      text: MLIR text of a module with one inner module for each function.
      references: the functions as JAX lowers them, by name; compiled, they compute what a bundle must compute.
      setting_limits: for runtime settings that are decays of averages in few bits, the least values at which the
        average would never fall.
    """

    text: str
    references: Mapping[str, jax.stages.Lowered]
    setting_limits: Mapping[str, float]


@pinned_settings()
def trace_training(
    *,
    init: Callable[[jax.Array], Any],
    loss: Callable[..., Any],
    optimizer: OptimizerFactory,
    batch: Any,
    eval_loss: Callable[..., Any] | None = None,
    predict: Callable[..., Any] | None = None,
    metrics: Callable[..., Any] | None = None,
    evaluation_draws: bool = False,
    per_example: bool = True,
    runtime_settings: Collection[str] = (),
    state_dtype: str = "float32",
    arithmetic: str = "float32",
    freeze: Sequence[str] = (),
    ema: float | None = None,
    loss_scale: float | None = None,
) -> Traced:
    """Traces `init`, `train_step`, `eval_step` and, where there is one, `predict`, under any settings of JAX.

    Args:
      init: a function of the model, as `sonew_compiled.model_functions.ModelFunctions` has it.
      loss: likewise.
      optimizer: makes an optax transformation from a learning rate, which is a traced float32 scalar; see
        `sonew_compiled.backward` for what its update is given.
      batch: a tree of `jax.ShapeDtypeStruct` whose leading axes are all the batch size.
      eval_loss, predict, metrics, evaluation_draws, per_example: the rest of the model's `ModelFunctions`.
      runtime_settings: names of further float32 scalars that `train_step` and, by keyword, `optimizer` take, such as
        "b1".
      state_dtype: the dtype in which a precision policy will store the float32 tensors of the optimizer's state.
      arithmetic: the dtype in which it will compute the model's state.
      freeze: patterns of parameters that are held.
      ema: the decay of the average of the trained parameters that is evaluated; None for none.
      loss_scale: the largest scale of the loss under the precision policy; None if it scales none.

    Returns:
      The module: arguments and results carry `sonew.name` and `sonew.role`, the arguments that the runtime gives up
      `sonew.donate`; see `sonew_compiled.contract`. In `train_step` the gradients and the update are functions of their
      own, `gradients` and `update`. `init` takes `learning_rate` too if the state
      starts from it (`sonew_compiled/rate_in_state.py`).

    Raises:
      UsageError: the model or the optimizer does not meet `sonew_compiled/requirements.py`.
    """
    model = ModelFunctions(
        init=init,
        loss=loss,
        eval_loss=eval_loss,
        predict=predict,
        metrics=metrics,
        evaluation_draws=evaluation_draws,
        per_example=per_example,
    )
    held = Held(freeze)

    def state_of(seed: Any, learning_rate: Any, hyper: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        return first_state(model, lambda: optimizer(learning_rate, **hyper), seed, held, averages=ema is not None)

    def trained_of(seed: Any, learning_rate: Any, hyper: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
        return trained_part(state_of(seed, learning_rate, hyper), held)[0]

    # Functions of their own in the module, so that passes find the seam between the gradients and the update.
    @jax.jit
    def gradients(
        params: Any, rest: Any, kept: Any, rng: Any, batch: Any, cotangent: Any, hyper: Mapping[str, Any]
    ) -> tuple[Any, Any, Any]:
        transformation = optimizer(jnp.zeros((), jnp.float32), **hyper)
        if own_backward(transformation) is not None:
            if model.has_state or model.takes_rng:
                what = "state" if model.has_state else "rng"
                raise UsageError(
                    f"the optimizer has a backward pass of its own, and the loss takes {what}; choose another optimizer"
                )
            return (*backward_pass(transformation, loss)(params, batch, cotangent), None)

        def whole_loss(trained: Any, *others: Any) -> Any:
            return model.train_loss(joined(trained, rest), *others)

        value, signals, after = backward_with_state(whole_loss, params, kept, rng, batch, cotangent)
        return value, signals, checked_model_state(after)

    update = _update(optimizer)

    def train_step(
        state: dict[str, Any], batch: Any, learning_rate: Any, hyper: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Any]:
        before, rest = trained_part(state, held)
        trained = rates.refreshed(before, learning_rate)
        point = gradient_point(optimizer(learning_rate, **hyper), trained[_PARAMS], trained[_OPTIMIZER])
        kept, rng = state.get(_MODEL_STATE), random_key(state)
        value, signals, kept = gradients(point, rest, kept, rng, batch, jnp.ones((), jnp.float32), hyper)
        after = {**update(signals, trained, learning_rate, hyper), **other_state(state, kept)}
        if ema is not None:
            after[_AVERAGE] = next_average(state[_AVERAGE], after[_PARAMS], ema)
        return {**after, _PARAMS: joined(after[_PARAMS], rest)}, value.astype(jnp.float32)

    def loss_of(trained: Any, others: tuple[Any, ...]) -> Any:
        return model.train_loss(joined(trained, others[0]), *others[1:])[0]

    def eval_step(evaluated: dict[str, Any], batch: Any) -> Any:
        return model.evaluation(evaluated_params(evaluated, trained), evaluated.get(_MODEL_STATE), batch)

    def prediction(evaluated: dict[str, Any], batch: Any) -> Any:
        return model.prediction(evaluated_params(evaluated, trained), evaluated.get(_MODEL_STATE), batch)

    check_batch(batch)
    check_average(ema, arithmetic)
    state = jax.eval_shape(state_of, _SEED, _SCALAR)
    given = state.get(_MODEL_STATE), jax.eval_shape(random_key, state)
    check_parameters(state[_PARAMS])
    trained, rest = trained_part(state, held)
    check_state(state)
    check_loss(loss_of, trained[_PARAMS], (rest, *given, batch))
    kept, fields = labels(state), labels({Role.BATCH.root: batch})
    evaluated = evaluated_state(state, rest)
    measured = {Role.METRIC.root: jax.eval_shape(eval_step, evaluated, batch)[1]}
    hyper = dict.fromkeys(sorted(runtime_settings), _SCALAR)

    differentiating, (_, signals, after) = jax.make_jaxpr(gradients, return_shape=True)(
        trained[_PARAMS], rest, *given, batch, _SCALAR, hyper
    )
    cotangent = len(jax.tree.leaves((state[_PARAMS], given, batch)))
    check_gradients(differentiating, cotangent, range(1, 1 + len(jax.tree.leaves(signals))))
    if loss_scale is not None and has_own_derivatives(jax.make_jaxpr(loss_of)(trained[_PARAMS], (rest, *given, batch))):

        def scaled(scale: Any) -> Any:
            started = state_of(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32))
            trained, rest = trained_part(started, held)
            given = started.get(_MODEL_STATE), random_key(started)
            settings = dict.fromkeys(hyper, jnp.float32(0.5))
            return gradients(trained[_PARAMS], rest, *given, drawn_batch(batch), scale, settings)[1]

        depends = dependents(differentiating, [cotangent])[1 : 1 + len(jax.tree.leaves(signals))]
        check_proportional(scaled, loss_scale, names_of({_PARAMS: signals}), depends)
    own = {_MODEL_STATE: given[0]}
    check_update(own, {_MODEL_STATE: after}, maker="init give a state like the one that loss returns")
    if model.has_state:
        first = len(jax.tree.leaves(state[_PARAMS]))
        steps = recurrences(differentiating)[-len(jax.tree.leaves(after)) :]
        check_decays(own, steps, first=first, stored=arithmetic, how="computes")
    updating, updated = jax.make_jaxpr(update, return_shape=True)(signals, trained, _SCALAR, hyper)
    check_update(trained, updated)
    first = len(jax.tree.leaves(signals))
    steps = recurrences(updating)
    check_decays(trained, steps, first=first, stored=state_dtype)
    check_decays(trained, recurrences(updating, stochastic=True), first=first, stored=arithmetic, how="computes")
    names = names_of(trained)
    refuse_settings(trained_of, list(hyper), names, _SCALAR)
    rates = RateInState(trained_of, names, steps, first=first, scalars=(_SEED, _SCALAR))
    if rates.starts:
        init_inputs, init_labels = [_SEED, _SCALAR], [_SEED_LABEL, _RATE_LABEL]
        start: Callable[..., dict[str, Any]] = state_of
    else:
        init_inputs, init_labels = [_SEED], [_SEED_LABEL]

        def start(seed: Any) -> dict[str, Any]:
            return state_of(seed, jnp.zeros((), jnp.float32))

    traces = {
        contract.INIT: trace_labelled(start, init_inputs, arguments=init_labels, results=kept),
        contract.TRAIN_STEP: trace_labelled(
            train_step,
            [state, batch, _SCALAR, hyper],
            arguments=[*kept, *fields, _RATE_LABEL, *(Label(name, Role.SETTING) for name in hyper)],
            results=[*kept, Label(contract.LOSS, Role.LOSS)],
            donate=True,
        ),
        contract.EVAL_STEP: trace_labelled(
            eval_step,
            [evaluated, batch],
            arguments=[*labels(evaluated), *fields],
            results=[Label(contract.LOSSES if per_example else contract.LOSS, Role.LOSS), *labels(measured)],
        ),
    }
    if predict is not None:
        traces[contract.PREDICT] = trace_labelled(
            prediction,
            [evaluated, batch],
            arguments=[*labels(evaluated), *fields],
            results=labels({Role.PREDICTION.root: jax.eval_shape(prediction, evaluated, batch)}),
            prune=True,
        )
    inner = "\n".join(inner_module(name, text) for name, (text, _) in traces.items())
    return Traced(
        text="module {\n" + inner + "\n}\n",
        references={name: lowered for name, (_, lowered) in traces.items()},
        setting_limits=_setting_limits(updating, trained, list(hyper), first, state_dtype, arithmetic),
    )


def _setting_limits(
    updating: ClosedJaxpr, state: Any, settings: Sequence[str], first: int, stored: str, arithmetic: str
) -> dict[str, float]:
    """The runtime settings that are decays of averages in few bits, each with the least value that is too slow."""
    limits = {}
    for index, name in enumerate(settings):
        at = len(updating.jaxpr.invars) - len(settings) + index
        for dtype, stochastic in ((stored, False), (arithmetic, True)):
            bound = slowest_decay(dtype)
            try:
                steps = recurrences(updating, {at: bound}, stochastic=stochastic)
                check_decays(state, steps, first=first, stored=dtype)
            except UsageError:
                limits[name] = bound
                break
    return limits


@pinned_settings()
def trace_update(*, init: Callable[[jax.Array], Any], optimizer: OptimizerFactory, batch: Any = None) -> str:
    """Traces the optimizer's update alone, for benchmarks; it is no part of a bundle.

    Args:
      init: `init(key) -> params`.
      optimizer: makes an optax transformation from a learning rate, which is a traced float32 scalar.
      batch: as `trace_training` takes it, for an optimizer whose backward pass is its own.

    Returns:
      MLIR text as from `trace_training`, with `init` and a `train_step`. That takes the gradients, or the signals that
      the optimizer takes in place of them, as `gradients/...`, the state and the learning rate, and returns the state.
    """

    def start(seed: Any) -> dict[str, Any]:
        return first_trained(init(init_key(seed)), lambda: optimizer(jnp.zeros((), jnp.float32)), Held())

    update = _update(optimizer)
    state = jax.eval_shape(start, _SEED)
    own = own_backward(optimizer(jnp.zeros((), jnp.float32)))
    signals = state[_PARAMS] if own is None else jax.eval_shape(own, state[_PARAMS], batch, _SCALAR)[1]
    kept = labels(state)
    step, _ = trace_labelled(
        update,
        [signals, state, _SCALAR, {}],
        arguments=[*labels({Role.GRADIENT.root: signals}), *kept, _RATE_LABEL],
        results=kept,
        donate=True,
    )
    made, _ = trace_labelled(start, [_SEED], arguments=[_SEED_LABEL], results=kept)
    return "module {\n" + inner_module(contract.INIT, made) + "\n" + inner_module(contract.TRAIN_STEP, step) + "\n}\n"


@pinned_settings()
def trace_function(function: Callable[..., Any], arguments: Sequence[Any]) -> str:
    """Traces one function of arrays as the `predict` of a module, to try it alone; it is no part of a bundle.

    Args:
      function: returns a tree of arrays.
      arguments: arrays, or their shapes and dtypes.

    Returns:
      MLIR text as `trace_training` gives it; arguments and results are named `argument/0`, `result/0` and so on.
    """
    given = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in arguments]
    results = jax.tree.leaves(jax.eval_shape(function, *given))
    text, _ = trace_labelled(
        function,
        given,
        arguments=[Label(f"argument/{index}", Role.BATCH) for index in range(len(given))],
        results=[Label(f"result/{index}", Role.PREDICTION) for index in range(len(results))],
    )
    return "module {\n" + inner_module(contract.PREDICT, text) + "\n}\n"


def _update(
    optimizer: OptimizerFactory,
) -> Callable[[Any, dict[str, Any], Any, Mapping[str, Any]], dict[str, Any]]:
    @jax.jit
    def update(signals: Any, state: dict[str, Any], learning_rate: Any, hyper: Mapping[str, Any]) -> dict[str, Any]:
        tx = optimizer(learning_rate, **hyper)
        updates, opt_state = tx.update(signals, state[_OPTIMIZER], state[_PARAMS])
        return {_PARAMS: optax.apply_updates(state[_PARAMS], updates), _OPTIMIZER: opt_state}

    return update
