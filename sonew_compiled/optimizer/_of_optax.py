"""Optimizers of optax, with the arguments that their records name."""

from __future__ import annotations

from typing import Any

import optax
import optax.contrib

from sonew_compiled.optimizer._precision import in_float32


def momentum(learning_rate: Any, *, b1: float) -> optax.GradientTransformation:
    """Heavy ball (Polyak 1964): `m_t = b1 m_{t-1} + g_t`."""
    return optax.sgd(learning_rate, momentum=b1)


def nesterov(learning_rate: Any, *, b1: float) -> optax.GradientTransformation:
    """Nesterov's momentum (1983) as in Sutskever et al. 2013: the step is `g_t + b1 m_t`."""
    return optax.sgd(learning_rate, momentum=b1, nesterov=True)


def adagrad(learning_rate: Any, *, eps: float) -> optax.GradientTransformation:
    """Duchi, Hazan, Singer, JMLR 2011, figure 1 with diagonal matrices; the sum of squares starts from zero."""
    return optax.adagrad(learning_rate, initial_accumulator_value=0.0, eps=eps)


def rmsprop(learning_rate: Any, *, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Tieleman and Hinton 2012, lecture 6.5; with `b1` the steps have momentum, `m_t = b1 m_{t-1} + step_t`."""
    return optax.rmsprop(learning_rate, decay=b2, eps=eps, momentum=b1 or None)


def muon(learning_rate: Any, *, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024); Adam with Nesterov's momentum and `b2` moves the tensors that are no matrices.

    `eps` is added to Adam's square roots, and to the norm that a matrix is divided by.

    The steps of matrices have root mean square 0.2, like Adam's (Liu et al. 2025, arXiv 2502.16982, equation 4), so
    that one learning rate suits both.
    """
    muon = optax.contrib.muon(
        learning_rate, beta=b1, eps=eps, adam_b1=0.9, adam_b2=b2, adam_eps_root=0.0, consistent_rms=0.2
    )
    return optax.GradientTransformation(muon.init, in_float32(muon.update))
