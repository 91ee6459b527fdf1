"""The settings that ship for each optimizer. Imports nothing, so that a device's command line can show them.

They were found on the autoencoder, full MNIST, batch 1000, by `tools/sweep.py` and, most, by `sonew tune` for 20
epochs: `docs/lab-notes.md` says how, and the runs are in `docs/results/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from sonew_compiled.errors import UsageError

# More optimizers than this are not proposed in place of one that does not take a setting.
_MOST_OTHERS = 4

# What each setting must be, and a value to try.
KBFGS_LARGEST_EPS = 1.0
"""The root of it is a bound of curvatures, relative to one."""

# In float32, larger ones are 1.
_LARGEST_DECAY = 1 - 2**-24

_ACCEPTED: dict[str, tuple[Callable[[float], bool], str]] = {
    "b1": (lambda x: 0 <= x <= _LARGEST_DECAY, "a decay in [0, 1), such as 0.9"),
    "b2": (lambda x: 0 <= x <= _LARGEST_DECAY, "a decay in [0, 1), such as 0.9"),
    "eps": (lambda x: 0 < x < math.inf, "a positive number, such as 1e-7"),
    "band": (lambda x: 0 <= x <= 32, "a whole number from 0 (diagonal) to 32"),
    "precond_interval": (lambda x: 1 <= x < 2**31, "a number of steps from 1 on, such as 20"),
    "block_size": (lambda x: 1 <= x < 2**31, "a number of rows from 1 on, such as 1024"),
    "rank": (lambda x: 1 <= x <= 64, "a whole number from 1 to 64"),
    "weight_decay": (lambda x: 0 <= x < math.inf, "zero or a positive number, such as 1e-4"),
    "local_steps": (lambda x: 1 <= x <= 100, "a whole number from 1 to 100, each of which is compiled"),
    "activation_rate": (lambda x: 0 < x < math.inf, "a positive number, such as 1e-2"),
}


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """An optimizer by name, with everything that is compiled in and the learning rate that goes with it.

    A setting is `None` where the optimizer has none such.

    Attributes:
      name: one of `OPTIMIZERS`.
      learning_rate: the peak of the schedule; a runtime input, so this is only the default.
      b1: decay of the momentum.
      b2: decay of the statistics.
      eps: damping; relative to the tensor's largest entry for the SONew family, see `docs/optimizers.md` for others.
      band: off-diagonals of the preconditioner.
      precond_interval: steps from one computation of the preconditioner to the next.
      block_size: the largest side of a block that has a preconditioner of its own.
      rank: rows of the sketch.
      weight_decay: decoupled weight decay.
      local_steps: steps that a layer makes on its local loss.
      activation_rate: how far the targets of a local loss are, in steps by the pre-activations' gradient.
    """

    name: str
    learning_rate: float
    b1: float | None = None
    b2: float | None = None
    eps: float | None = None
    band: int | None = None
    precond_interval: int | None = None
    block_size: int | None = None
    rank: int | None = None
    weight_decay: float | None = None
    local_steps: int | None = None
    activation_rate: float | None = None

    def __post_init__(self) -> None:
        for key, (accepts, remedy) in _ACCEPTED.items():
            value = getattr(self, key)
            if value is not None and not accepts(value):
                raise UsageError(f"{flag_of(key)} is {value}; give {remedy}")
        if self.name == "schedule-free-adamw" and self.b1 == 0:
            raise UsageError("--b1 is 0.0, with which schedule-free-adamw averages nothing; give a decay such as 0.9")
        if self.name == "kbfgs" and self.eps is not None and self.eps >= KBFGS_LARGEST_EPS:
            raise UsageError(f"--eps is {self.eps}, which kbfgs takes below {KBFGS_LARGEST_EPS}; give one such as 0.3")


def _preset(
    name: str, rate: float, b1: float | None = None, b2: float | None = None, eps: float | None = None, **others: Any
) -> OptimizerSettings:
    return OptimizerSettings(name=name, learning_rate=rate, b1=b1, b2=b2, eps=eps, **others)


# diag-sonew and band-sonew have tridiag-sonew's. Those for small models, ons, full-adagrad and natural-gradient, were
# found on docs/examples/perceptron.py.
_PRESETS = {
    preset.name: preset
    for preset in (
        _preset("diag-sonew", 7e-3, 0.9, 0.95, 1e-6, band=0),
        _preset("tridiag-sonew", 7e-3, 0.9, 0.95, 1e-6, band=1),
        _preset("band-sonew", 7e-3, 0.9, 0.95, 1e-6, band=4),
        _preset("sgd", 1e-2),
        _preset("momentum", 2.9e-3, 0.72),
        _preset("nesterov", 4.8e-3, 0.6),
        _preset("adagrad", 7.2e-3, eps=1.2e-5),
        _preset("rmsprop", 8.8e-4, b2=0.97, eps=1.4e-5),
        _preset("adam", 2e-3, 0.9, 0.99, 1e-6),
        _preset("adamw", 2e-3, 0.9, 0.99, 1e-6, weight_decay=1e-4),
        _preset("adam-8bit", 2e-3, 0.9, 0.99, 1e-6),
        _preset("schedule-free-adamw", 6.7e-4, 0.9, 0.99, 1e-6, weight_decay=0.0),
        _preset("muon", 6e-3, 0.95, 0.99, 1e-6),
        _preset("soap", 6e-3, 0.95, 0.95, 1e-8, precond_interval=10),
        _preset("shampoo", 3.7e-3, 0.9, 0.95, 1e-6, precond_interval=20, block_size=2048),
        _preset("rfdson", 7.9e-4, 0.76, 0.989, 0.91, rank=4),
        _preset("ons", 6.2, eps=1.0),
        _preset("full-adagrad", 3.0, eps=1e-6, precond_interval=1),
        _preset("kfac", 1.0, 0.9, 0.95, 0.1, precond_interval=20),
        _preset("kbfgs", 0.48, 0.967, 0.83, 0.58),
        _preset("natural-gradient", 1.0, eps=1e-2),
        _preset("locoprop", 1.5e-4, 0.999, 0.9, 3e-6, local_steps=10, activation_rate=1e-2),
    )
}

# Where a policy needs another learning rate: parameters rounded to nearest in bfloat16 lose the steps of the end of a
# schedule, and larger ones before make up for it (docs/precision.md).
_RATES = {("tridiag-sonew", "bf16"): 1.3e-2, ("band-sonew", "bf16"): 1.3e-2}

# What a compiled step can take at run time, beside the learning rate, if it is traced so.
_AT_RUN_TIME = ("b1", "b2", "eps")

OPTIMIZERS = tuple(_PRESETS)
PRECISIONS = ("f32", "bf16", "bf16-pure", "bf16-mixed", "f16-mixed", "bf16-sr")
DEFAULT_OPTIMIZER = "tridiag-sonew"
SETTINGS = tuple(field.name for field in fields(OptimizerSettings) if field.name not in ("name", "learning_rate"))
"""The names of all settings that some optimizer takes."""


def settings_of(name: str) -> tuple[str, ...]:
    """The settings that can be chosen for an optimizer: the band of diag-sonew and tridiag-sonew cannot."""
    preset = _PRESETS[name]
    fixed = ("band",) if name in ("diag-sonew", "tridiag-sonew") else ()
    return tuple(key for key in SETTINGS if getattr(preset, key) is not None and key not in fixed)


def runtime_settings_of(name: str) -> tuple[str, ...]:
    """Of `settings_of`, those that a compiled step can take at run time.

    Not the `eps` of `ons`, whose first state is made of it.
    """
    fixed = ("eps",) if name == "ons" else ()
    return tuple(key for key in settings_of(name) if key in _AT_RUN_TIME and key not in fixed)


def optimizer_settings(
    name: str = DEFAULT_OPTIMIZER,
    *,
    precision: str = "f32",
    band: int | None = None,
    b1: float | None = None,
    b2: float | None = None,
    eps: float | None = None,
    precond_interval: int | None = None,
    block_size: int | None = None,
    rank: int | None = None,
    weight_decay: float | None = None,
    local_steps: int | None = None,
    activation_rate: float | None = None,
) -> OptimizerSettings:
    """The preset of `name` under a precision policy, with what is given put in its place.

    Raises:
      UsageError: no such optimizer, a setting that the optimizer does not take, or a number out of range.
    """
    if name not in _PRESETS:
        raise UsageError(f"unknown optimizer {name!r}; give one of {', '.join(OPTIMIZERS)}")
    preset = _PRESETS[name]
    settings: dict[str, float | int | None] = {
        "b1": b1,
        "b2": b2,
        "eps": eps,
        "band": band,
        "precond_interval": precond_interval,
        "block_size": block_size,
        "rank": rank,
        "weight_decay": weight_decay,
        "local_steps": local_steps,
        "activation_rate": activation_rate,
    }
    given = {key: value for key, value in settings.items() if value is not None}
    taken = settings_of(name)
    for key, value in given.items():
        if key not in taken and value != getattr(preset, key):
            accepted = ", ".join(map(flag_of, taken)) or "no settings"
            others = [other for other in OPTIMIZERS if key in settings_of(other)]
            instead = f", or give --optimizer {' or '.join(others)}" if len(others) <= _MOST_OTHERS else ""
            raise UsageError(
                f"{flag_of(key)} {value} does not go with {name}, which takes {accepted}; leave it out{instead}"
            )
    rate = _RATES.get((name, precision), preset.learning_rate)
    return replace(preset, learning_rate=rate, **given)  # type: ignore[arg-type]  # each has the type of its own argument


def flag_of(setting: str) -> str:
    """The option of the command line that sets what is called so in Python."""
    return f"--{setting.replace('_', '-')}"
