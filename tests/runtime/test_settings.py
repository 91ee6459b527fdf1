"""The settings of a run and the values that they accept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest

from sonew_compiled.errors import UsageError
from sonew_compiled.runtime import TrainSettings

GOOD = TrainSettings(epochs=1, learning_rate=0.05)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, "--epochs is 0;"),
        ({"learning_rate": -1.0}, "--learning-rate is -1.0;"),
        ({"learning_rate": math.nan}, "--learning-rate is nan;"),
        ({"schedule": "linear"}, "--schedule is 'linear'; give one of paper, constant, cosine"),
        ({"warmup_epochs": -1}, "--warmup-epochs is -1;"),
        ({"keep": 0}, "--keep is 0;"),
        ({"checkpoint_every": 0}, "--checkpoint-every is 0;"),
        ({"max_steps": 0}, "--max-steps is 0;"),
        ({"seed": 2**31}, "--seed is 2147483648; give a whole number from 0 to 2147483647"),
        ({"epochs": None}, "--epochs is None;"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], said: str, refusal: Callable[..., str]) -> None:
    assert said in refusal(UsageError, lambda: dataclasses.replace(GOOD, **changes))
