"""Settings that several optimizers share; each function takes the value that an optimizer ships with."""

from __future__ import annotations

import math

from sonew_compiled.presets._record import Hyperparameter
from sonew_compiled.setting import FLOAT32_LEAST, FLOAT32_MOST

# A larger decay is 1 in float32.
_LARGEST_DECAY = 1 - 2**-24
_LARGEST_COUNT = 2**31 - 1


def b1(default: float, *, is_positive: bool = False, at_run_time: bool = True) -> Hyperparameter:
    """Decay of the momentum."""
    return Hyperparameter(
        name="b1",
        kind=float,
        default=default,
        help="Decay of the momentum.",
        least=FLOAT32_LEAST if is_positive else 0.0,
        most=_LARGEST_DECAY,
        accepted=f"a decay in {'(' if is_positive else '['}0, 1), such as 0.9",
        at_run_time=at_run_time,
        search=4.0,
        from_one=True,
    )


def b2(default: float) -> Hyperparameter:
    """Decay of the statistics."""
    return Hyperparameter(
        name="b2",
        kind=float,
        default=default,
        help="Decay of the statistics.",
        least=0.0,
        most=_LARGEST_DECAY,
        accepted="a decay in [0, 1), such as 0.9",
        at_run_time=True,
        search=5.0,
        from_one=True,
    )


def eps(default: float, *, below: float = math.inf, example: str = "1e-7", at_run_time: bool = True) -> Hyperparameter:
    """Damping; docs/reference/optimizers.md gives its units for each optimizer."""
    bound = "" if below == math.inf else f" below {below}"
    return Hyperparameter(
        name="eps",
        kind=float,
        default=default,
        help="Damping.",
        least=FLOAT32_LEAST,
        most=min(math.nextafter(below, 0.0), FLOAT32_MOST),
        accepted=f"a positive number of float32{bound}, such as {example}",
        at_run_time=at_run_time,
        search=30.0,
    )


def precond_interval(default: int) -> Hyperparameter:
    """Steps from one computation of the preconditioner to the next."""
    return Hyperparameter(
        name="precond_interval",
        kind=int,
        default=default,
        help="Steps from one preconditioner to the next.",
        least=1,
        most=_LARGEST_COUNT,
        accepted="a number of steps from 1 on, such as 20",
    )


def block_size(default: int) -> Hyperparameter:
    """The largest side of a block with a preconditioner of its own."""
    return Hyperparameter(
        name="block_size",
        kind=int,
        default=default,
        help="Largest side of a block.",
        least=1,
        most=_LARGEST_COUNT,
        accepted="a number of rows from 1 on, such as 1024",
    )


def weight_decay(default: float) -> Hyperparameter:
    """Decoupled weight decay."""
    return Hyperparameter(
        name="weight_decay",
        kind=float,
        default=default,
        help="Decoupled weight decay.",
        least=0.0,
        most=FLOAT32_MOST,
        accepted="zero or a positive number of float32, such as 1e-4",
    )


def word(name: str, choices: tuple[str, ...], *, help: str) -> Hyperparameter:
    """A choice of words, of which the first ships."""
    return Hyperparameter(
        name=name, kind=str, default=choices[0], help=help, choices=choices, accepted=f"one of {', '.join(choices)}"
    )
