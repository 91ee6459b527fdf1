"""The settings that ship for each optimizer. Imports nothing, so that a device's command line can show them.

Found on the autoencoder, full MNIST, batch 1000, by `tools/sweep.py`; the runs are in `docs/results/`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sonew_compiled.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """An optimizer by name, with everything that is compiled in and the learning rate that goes with it.

    Attributes:
      name: `diag-sonew`, `tridiag-sonew`, `band-sonew` or `adam`.
      learning_rate: the peak of the schedule; a runtime input, so this is only the default.
      b1: decay of the momentum.
      b2: decay of the statistics.
      eps: damping; relative to the tensor's largest entry for the SONew family.
      band: off-diagonals of the preconditioner, `None` for `adam`.
    """

    name: str
    learning_rate: float
    b1: float
    b2: float
    eps: float
    band: int | None = None

    def __post_init__(self) -> None:
        for key in ("b1", "b2"):
            if not 0 <= getattr(self, key) < 1:
                raise UsageError(f"--{key} is {getattr(self, key)}; give a decay in [0, 1), such as 0.9")
        if not 0 < self.eps < math.inf:
            raise UsageError(f"--eps is {self.eps}; give a positive number, such as 1e-7")


# docs/results.md says how tridiag-sonew's and adam's were found; diag-sonew and band-sonew have tridiag-sonew's.
_PRESETS = {
    "diag-sonew": OptimizerSettings(name="diag-sonew", learning_rate=7e-3, b1=0.9, b2=0.95, eps=1e-6, band=0),
    "tridiag-sonew": OptimizerSettings(name="tridiag-sonew", learning_rate=7e-3, b1=0.9, b2=0.95, eps=1e-6, band=1),
    "band-sonew": OptimizerSettings(name="band-sonew", learning_rate=7e-3, b1=0.9, b2=0.95, eps=1e-6, band=4),
    "adam": OptimizerSettings(name="adam", learning_rate=2e-3, b1=0.9, b2=0.99, eps=1e-6),
}

OPTIMIZERS = tuple(_PRESETS)
PRECISIONS = ("f32", "bf16", "bf16-pure", "bf16-mixed", "f16-mixed", "bf16-sr")
DEFAULT_OPTIMIZER = "tridiag-sonew"


def optimizer_settings(
    name: str = DEFAULT_OPTIMIZER,
    *,
    band: int | None = None,
    b1: float | None = None,
    b2: float | None = None,
    eps: float | None = None,
) -> OptimizerSettings:
    """The preset of `name`, with what is given put in its place.

    Raises:
      UsageError: no such optimizer, a band that the optimizer does not take, or a number out of range.
    """
    if name not in _PRESETS:
        raise UsageError(f"unknown optimizer {name!r}; give one of {', '.join(OPTIMIZERS)}")
    preset = _PRESETS[name]
    if band is not None and name != "band-sonew" and band != preset.band:
        raise UsageError(f"--band {band} does not go with {name}; give --optimizer band-sonew, or leave out --band")
    if band is not None and not 0 <= band <= 32:
        raise UsageError(f"--band is {band}; give a whole number from 0 (diagonal) to 32")
    return OptimizerSettings(
        name=name,
        learning_rate=preset.learning_rate,
        b1=preset.b1 if b1 is None else b1,
        b2=preset.b2 if b2 is None else b2,
        eps=preset.eps if eps is None else eps,
        band=preset.band if band is None else band,
    )
