"""The settings of a run and the values that they accept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime import TrainSettings

GOOD = TrainSettings(epochs=1, learning_rate=0.05)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, "--epochs is 0;"),
        ({"learning_rate": -1.0}, "--learning-rate is -1.0;"),
        ({"learning_rate": math.nan}, "--learning-rate is nan;"),
        (
            {"schedule": "quadratic"},
            "--schedule is 'quadratic'; give one of constant, cosine, linear, step, exp",
        ),
        ({"warmup_epochs": -1}, "--warmup-epochs is -1;"),
        ({"warmup_steps": -1}, "--warmup-steps is -1;"),
        ({"final_rate": -1e-3}, "--final-rate is -0.001;"),
        ({"warmup_steps": 1, "warmup_epochs": 1}, "--warmup-steps and --warmup-epochs are two units"),
        ({"warmup_steps": 1, "schedule": "paper"}, "give --warmup-epochs instead of --warmup-steps"),
        ({"final_rate": 0.01, "schedule": "paper"}, "--schedule paper has no --final-rate; leave it out, or choose"),
        ({"final_rate": 0.01, "schedule": "constant"}, "--schedule constant has no --final-rate"),
        ({"final_rate": 0.06}, "--final-rate is 0.06, above the peak 0.05"),
        ({"final_rate": 0.0, "schedule": "step"}, "--final-rate is 0, which --schedule step never reaches"),
        ({"final_rate": 0.0, "schedule": "exponential"}, "--final-rate is 0, which --schedule exponential never"),
        ({"keep": 0}, "--keep is 0;"),
        ({"checkpoint_every": 0}, "--checkpoint-every is 0;"),
        ({"max_steps": 0}, "--max-steps is 0;"),
        ({"seed": 2**31}, "--seed is 2147483648; give a whole number from 0 to 2147483647"),
        ({"epochs": None}, "--epochs is None;"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], said: str, refusal: Callable[..., str]) -> None:
    assert said in refusal(UsageError, lambda: dataclasses.replace(GOOD, **changes))


@pytest.mark.parametrize(
    ("had", "given", "becomes"),
    [
        ({"warmup_steps": 7}, {"schedule": "linear"}, {"warmup_steps": 7, "schedule": "linear"}),
        ({"warmup_steps": 7}, {"schedule": "paper"}, {"schedule": "paper"}),
        ({"warmup_steps": 7}, {"warmup_epochs": 1}, {"warmup_epochs": 1}),
        ({"warmup_epochs": 1}, {"warmup_steps": 7}, {"warmup_steps": 7}),
        ({"final_rate": 0.01}, {"schedule": "constant"}, {"schedule": "constant"}),
        ({"final_rate": 0.01}, {"epochs": 3}, {"final_rate": 0.01, "epochs": 3}),
    ],
)
def test_what_a_resumed_run_is_given_replaces_what_does_not_go_with_it(
    had: dict[str, Any], given: dict[str, Any], becomes: dict[str, Any]
) -> None:
    assert dataclasses.replace(GOOD, **had).changed(given) == dataclasses.replace(GOOD, **becomes)


def test_a_checkpoint_from_before_the_steps_of_warmup_keeps_its_schedule() -> None:
    old = {"epochs": "5", "learning_rate": "0.25", "schedule": "paper", "warmup_epochs": "2", "seed": "1"}
    expected = TrainSettings(epochs=5, learning_rate=0.25, schedule="paper", warmup_epochs=2, seed=1)
    assert TrainSettings.from_metadata(old, source=Path("old")) == expected
    assert expected.with_warmup(60) == expected
    with pytest.raises(SonewError, match="does not say how it was trained"):
        TrainSettings.from_metadata({**old, "warmup_epochs": ""}, source=Path("old"))
    del old["warmup_epochs"]
    with pytest.raises(SonewError, match="does not say how it was trained"):
        TrainSettings.from_metadata(old, source=Path("old"))


@pytest.mark.parametrize(
    ("changes", "warmup"),
    [
        ({"epochs": 60}, {"warmup_steps": 100}),
        ({"epochs": 60, "schedule": "paper"}, {"warmup_epochs": 3}),
        ({"epochs": 60, "warmup_epochs": 0}, {"warmup_epochs": 0}),
        ({"epochs": 60, "schedule": "step", "final_rate": 0.0123456789}, {"warmup_steps": 100}),
    ],
)
def test_a_checkpoint_has_the_length_of_the_warmup(changes: dict[str, Any], warmup: dict[str, int]) -> None:
    settings = dataclasses.replace(GOOD, **changes)
    again = TrainSettings.from_metadata(settings.with_warmup(10).to_metadata(), source=Path("run"))
    assert again == dataclasses.replace(settings, **warmup)
    # More epochs do not change it.
    assert again.changed({"epochs": 600}).with_warmup(10) == dataclasses.replace(settings, **warmup, epochs=600)
