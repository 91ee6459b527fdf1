"""The records of optimizers that look into the model, whose loss they differentiate themselves."""

from __future__ import annotations

from sonew_compiled.presets._record import Hyperparameter, OptimizerRecord
from sonew_compiled.presets._settings import b1, b2, eps, precond_interval
from sonew_compiled.setting import FLOAT32_LEAST, FLOAT32_MOST

RECORDS = (
    OptimizerRecord(
        name="kfac",
        factory="sonew_compiled.optimizer:kfac",
        learning_rate=1.0,
        settings=(b1(0.9), b2(0.95), eps(0.1), precond_interval(20)),
        needs_loss=True,
        needs_layers=True,
        paper="Martens and Grosse 2015, arXiv 1503.05671",
        state="1 + 2 (in/out + out/in)",
    ),
    OptimizerRecord(
        name="eva",
        factory="sonew_compiled.optimizer:eva",
        learning_rate=0.1,
        settings=(b1(0.9), b2(0.05), eps(0.03)),
        needs_loss=True,
        needs_layers=True,
        paper="Zhang, Shi, Li 2023, arXiv 2308.02123",
        state="1 + 1/in + 1/out",
    ),
    OptimizerRecord(
        name="kbfgs",
        factory="sonew_compiled.optimizer:kbfgs",
        learning_rate=0.48,
        # The square root of the damping bounds curvatures, relative to 1.
        settings=(b1(0.967), b2(0.83), eps(0.58, below=1.0, example="0.3")),
        needs_loss=True,
        needs_layers=True,
        needs_float32_state=True,
        paper="Goldfarb, Ren, Bahamou 2020, arXiv 2006.08877",
        state="1 + 2 in/out + out/in",
    ),
    # Its preset was found on docs/examples/perceptron.py.
    OptimizerRecord(
        name="natural-gradient",
        factory="sonew_compiled.optimizer:natural_gradient",
        learning_rate=1.0,
        settings=(eps(1e-2),),
        needs_loss=True,
        paper="Amari 1998",
        state="0",
        limits="4096 parameters",
    ),
    OptimizerRecord(
        name="locoprop",
        factory="sonew_compiled.optimizer:locoprop",
        learning_rate=1.5e-4,
        settings=(
            b1(0.999),
            b2(0.9),
            eps(3e-6),
            Hyperparameter(
                name="local_steps",
                kind=int,
                default=10,
                help="Local steps of a layer in each step.",
                least=1,
                most=100,
                accepted="a whole number from 1 to 100; each step is compiled",
            ),
            Hyperparameter(
                name="activation_rate",
                kind=float,
                default=1e-2,
                help="Step along the gradient of the pre-activations to the targets of the local losses.",
                least=FLOAT32_LEAST,
                most=FLOAT32_MOST,
                accepted="a positive number of float32, such as 1e-2",
            ),
        ),
        needs_loss=True,
        needs_layers=True,
        paper="Amid, Anil, Warmuth 2022, arXiv 2106.06199",
        state="2",
    ),
)
