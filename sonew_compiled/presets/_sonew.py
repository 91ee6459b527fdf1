"""The records of SONew."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from sonew_compiled.presets._record import Hyperparameter, OptimizerRecord, Start, Value, long_presets
from sonew_compiled.presets._settings import b1, b2, eps, word

_FACTORY = "sonew_compiled.optimizer:sonew"
_PAPER = "SONew, 2023, arXiv 2311.10085"

# `diag-sonew` and `band-sonew` ship with the rate that was found for `tridiag-sonew`.
_RATE = 7e-3
_SETTINGS = (
    b1(0.9),
    b2(0.95),
    eps(1e-6),
    word(
        "eps_mode",
        ("relative", "absolute"),
        help="Damping in shares of the largest statistics of each tensor, or as it is.",
    ),
    word(
        "grafting",
        ("adam", "sgd", "momentum", "rmsprop", "none"),
        help="Whose step length each tensor takes; none needs a learning rate some 300 times lower.",
    ),
    word("rank1", ("adam", "sonew"), help="The rule for biases and other tensors of rank 0 and 1."),
    word(
        "flatten",
        ("column", "row"),
        help="The order of a matrix's chain: the inputs of one output are neighbours, or as in memory.",
    ),
    Hyperparameter(
        name="tolerance",
        kind=float,
        default=None,
        help="Smallest Schur complement that keeps its edges, as a share of its diagonal entry; by default the epsilon "
        "of the dtype of the state, and 2/127 for int8.",
        least=0.0,
        most=math.nextafter(1.0, 0.0),
        accepted="a number in [0, 1), such as 1e-6",
    ),
)
_STATE = word(
    "state",
    ("float", "int8"),
    help="Numbers of the optimizer's state: of the precision policy's dtype, or of 8 bits, rounded stochastically.",
)
# Parameters that are rounded to nearest in bfloat16 lose the small steps at the end of a schedule. Larger steps before
# make up for them (docs/reference/precision.md).
_RATES = MappingProxyType({"bf16": 1.3e-2})
# Shares of the largest statistics end higher. An absolute damping belongs to one model, whose gradients have one size.
_ABSOLUTE: Mapping[str, Value] = MappingProxyType({"eps": 3e-6, "eps_mode": "absolute", "rank1": "sonew"})
_LONG_RATES = MappingProxyType({"f32": _RATE, "bf16-mixed": _RATE, "bf16-pure": _RATE, "bf16": 1e-2})
# The setting of the authors' best run of 100 epochs, of the tridiagonal one; the nearest that is known for the others.
_UNGRAFTED = Start(
    learning_rate=2.2602e-5,
    values=MappingProxyType(
        {
            "b1": 0.954923,
            "b2": 0.979452,
            "eps": 6.7597e-7,
            "eps_mode": "absolute",
            "grafting": "none",
            "rank1": "sonew",
        }
    ),
)
_STARTS = (Start(learning_rate=_RATE, values=_ABSOLUTE), _UNGRAFTED)


RECORDS = (
    OptimizerRecord(
        name="diag-sonew",
        factory=_FACTORY,
        learning_rate=_RATE,
        starts=_STARTS,
        long=MappingProxyType(
            {
                **long_presets(
                    {"f32": 6.5e-3, "bf16-mixed": 6.5e-3, "bf16-pure": 6.5e-3},
                    **{**_ABSOLUTE, "b2": 0.96, "eps": 4e-6},
                ),
                **long_presets({"bf16": 8e-3}, **{**_ABSOLUTE, "eps": 5e-6}),
            }
        ),
        settings=(*_SETTINGS, _STATE),
        fixed=MappingProxyType({"band": 0}),
        grafted=True,
        paper=_PAPER,
        state="2",
    ),
    OptimizerRecord(
        name="tridiag-sonew",
        factory=_FACTORY,
        learning_rate=_RATE,
        starts=_STARTS,
        rates=_RATES,
        long=long_presets(_LONG_RATES, **_ABSOLUTE),
        settings=(*_SETTINGS, _STATE),
        fixed=MappingProxyType({"band": 1}),
        grafted=True,
        paper=_PAPER,
        state="3",
    ),
    OptimizerRecord(
        name="band-sonew",
        factory=_FACTORY,
        learning_rate=_RATE,
        starts=_STARTS,
        rates=_RATES,
        long=long_presets(_LONG_RATES, **_ABSOLUTE),
        settings=(
            *_SETTINGS,
            Hyperparameter(
                name="band",
                kind=int,
                default=4,
                help="Off-diagonals of the preconditioner.",
                least=0,
                most=32,
                accepted="a whole number from 0 (diagonal) to 32",
            ),
        ),
        grafted=True,
        paper=_PAPER,
        state="2 + `band`",
        limits="`band` up to 32",
    ),
)
