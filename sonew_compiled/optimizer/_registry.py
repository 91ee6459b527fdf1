"""From an optimizer's settings to the function that makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import jax
import optax
import optax.contrib

from sonew_compiled.errors import UsageError
from sonew_compiled.optimizer._adam8bit import adam_8bit
from sonew_compiled.optimizer._full_adagrad import full_adagrad
from sonew_compiled.optimizer._kbfgs import kbfgs
from sonew_compiled.optimizer._kfac import kfac
from sonew_compiled.optimizer._locoprop import locoprop
from sonew_compiled.optimizer._natural_gradient import natural_gradient
from sonew_compiled.optimizer._ons import ons
from sonew_compiled.optimizer._precision import in_float32
from sonew_compiled.optimizer._rfdson import rfdson
from sonew_compiled.optimizer._runtime_number import RuntimeNumber
from sonew_compiled.optimizer._schedule_free import schedule_free_adamw
from sonew_compiled.optimizer._shampoo import shampoo
from sonew_compiled.optimizer._soap import soap
from sonew_compiled.optimizer._sonew import sonew
from sonew_compiled.presets import OptimizerSettings


def _momentum(learning_rate: Any, *, b1: float) -> optax.GradientTransformation:
    """Heavy ball (Polyak 1964): `m_t = b1 m_{t-1} + g_t`."""
    return optax.sgd(learning_rate, momentum=b1)


def _nesterov(learning_rate: Any, *, b1: float) -> optax.GradientTransformation:
    """Nesterov's momentum (1983) as in Sutskever et al. 2013: the step is `g_t + b1 m_t`."""
    return optax.sgd(learning_rate, momentum=b1, nesterov=True)


def _adagrad(learning_rate: Any, *, eps: float) -> optax.GradientTransformation:
    """Duchi, Hazan, Singer, JMLR 2011, figure 1 with diagonal matrices; the sum of squares starts from zero."""
    return optax.adagrad(learning_rate, initial_accumulator_value=0.0, eps=eps)


def _rmsprop(learning_rate: Any, *, b2: float, eps: float) -> optax.GradientTransformation:
    """Tieleman and Hinton 2012, lecture 6.5."""
    return optax.rmsprop(learning_rate, decay=b2, eps=eps)


def _muon(learning_rate: Any, *, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Jordan et al. 2024; `b2` and `eps` are of Adam, which moves tensors that are no matrices.

    Steps of matrices have root mean square 0.2, as Adam's (Liu et al. 2025, arXiv 2502.16982, equation 4), so that one
    learning rate goes for both.
    """
    muon = optax.contrib.muon(
        learning_rate, beta=b1, eps=eps, adam_b1=0.9, adam_b2=b2, adam_eps_root=0.0, consistent_rms=0.2
    )
    return optax.GradientTransformation(muon.init, in_float32(muon.update))


# Each takes a learning rate and the settings of its preset, by name, and those below a loss and a batch.
_MAKERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "diag-sonew": sonew,
    "tridiag-sonew": sonew,
    "band-sonew": sonew,
    "sgd": optax.sgd,
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "adam-8bit": adam_8bit,
    "schedule-free-adamw": schedule_free_adamw,
    "muon": _muon,
    "soap": soap,
    "shampoo": shampoo,
    "rfdson": rfdson,
    "ons": ons,
    "full-adagrad": full_adagrad,
    "kfac": kfac,
    "kbfgs": kbfgs,
    "natural-gradient": natural_gradient,
    "locoprop": locoprop,
}


# These differentiate the model's loss themselves; the former find its layers for batches of some shape.
_OF_LAYERS = ("kfac", "kbfgs", "locoprop")
_OF_A_LOSS = (*_OF_LAYERS, "natural-gradient")


def optimizer_factory(
    settings: OptimizerSettings, *, loss: Callable[[Any, Any], jax.Array] | None = None, batch: Any = None
) -> Callable[..., optax.GradientTransformation]:
    """The optimizer as a function of its learning rate: a float, a schedule or a traced scalar.

    By keyword the function takes traced scalars in place of `b1`, `b2` and `eps`, for which the settings' own numbers
    stand in where the optimizer looks at them while it is traced.

    Args:
      settings: of the optimizer.
      loss: `loss(params, batch) -> scalar`, for one that looks into the model.
      batch: a tree of `jax.ShapeDtypeStruct`, likewise; its batch size need not be that of the training.

    Raises:
      UsageError: the optimizer looks into the model, and there is none.
    """
    given = {key: value for key, value in asdict(settings).items() if value is not None}
    name = given.pop("name")
    del given["learning_rate"]
    if name in _OF_A_LOSS:
        if loss is None or (name in _OF_LAYERS and batch is None):
            raise UsageError(f"{name} looks into the model; give optimizer_factory the model's loss and batch")
        given["loss"] = loss
    if name in _OF_LAYERS:
        given["batch"] = batch

    def make(learning_rate: Any, **traced: Any) -> optax.GradientTransformation:
        numbers = {key: RuntimeNumber(given[key], value) for key, value in traced.items()}
        return _MAKERS[name](learning_rate, **(given | numbers))

    return make
