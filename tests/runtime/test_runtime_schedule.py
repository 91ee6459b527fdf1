"""The learning rate over a run."""

import math
from collections.abc import Callable

import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonew_compiled.errors import UsageError
from sonew_compiled.runtime.schedule import learning_rates
from sonew_compiled.train_settings import SCHEDULES, default_warmup_epochs, default_warmup_steps


def test_paper_is_the_published_formula() -> None:
    rate = learning_rates("paper", peak=0.01, epochs=100, steps_per_epoch=60, warmup_epochs=5)
    published = np.concatenate([np.linspace(0, 0.01, 5), np.linspace(0.01, 0, 100 - 5 + 2)[1:-1]])
    np.testing.assert_array_equal([rate(step) for step in range(6000)], np.repeat(published, 60))
    assert rate(0) == 0
    assert rate(4 * 60) == 0.01
    assert 0 < rate(5999) < rate(5900)


def test_paper_by_default_warms_up_for_a_twentieth() -> None:
    rate = learning_rates("paper", peak=1, epochs=100, steps_per_epoch=1)
    assert [rate(step) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    ("epochs", "warmup", "rates"),
    [
        (1, None, [0.5]),
        (2, None, [0, 0.5]),
        (3, None, [0, 1, 0.5]),
        (3, 0, [0.75, 0.5, 0.25]),
        (3, 1, [0, 2 / 3, 1 / 3]),
        (3, 3, [0, 1, 0.5]),
        (3, 50, [0, 1, 0.5]),
        (1, 5, [0.5]),
    ],
)
def test_paper_at_its_edges(epochs: int, warmup: int | None, rates: list[float]) -> None:
    rate = learning_rates("paper", peak=1, epochs=epochs, steps_per_epoch=2, warmup_epochs=warmup)
    np.testing.assert_allclose([rate(2 * epoch + 1) for epoch in range(epochs)], rates)


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (2, 1), (3, 2), (20, 2), (60, 3), (100, 5), (1000, 50)])
def test_default_warmup(epochs: int, warmup: int) -> None:
    assert default_warmup_epochs(epochs) == warmup


@pytest.mark.parametrize(
    ("schedule", "steps", "warmup"),
    [
        ("cosine", 1200, 100),
        ("cosine", 6000, 300),
        ("linear", 120, 60),
        ("constant", 9, 4),
        ("one-cycle", 120, 36),
        ("step", 1, 0),
    ],
)
def test_default_steps_of_warmup(schedule: str, steps: int, warmup: int) -> None:
    assert default_warmup_steps(schedule, steps) == warmup
    rate = learning_rates(schedule, peak=1, epochs=1, steps_per_epoch=steps)
    asked = learning_rates(schedule, peak=1, epochs=1, steps_per_epoch=steps, warmup_steps=warmup)
    assert [rate(step) for step in range(steps)] == [asked(step) for step in range(steps)]


def test_steps_and_epochs_of_warmup_are_units_of_one_length() -> None:
    by_steps = learning_rates("linear", peak=1, epochs=4, steps_per_epoch=5, warmup_steps=10)
    by_epochs = learning_rates("linear", peak=1, epochs=4, steps_per_epoch=5, warmup_epochs=2)
    assert [by_steps(step) for step in range(20)] == [by_epochs(step) for step in range(20)]


# optax's schedules begin after the warm-up, where ours reach the peak.
OPTAX = {
    "cosine": lambda steps, final: optax.cosine_decay_schedule(0.2, steps, alpha=final / 0.2),
    "linear": lambda steps, final: optax.linear_schedule(0.2, final, steps),
    "exponential": lambda steps, final: optax.exponential_decay(0.2, steps, final / 0.2),
    "step": lambda steps, final: optax.piecewise_constant_schedule(
        0.2, {steps // 2: math.sqrt(final / 0.2), steps * 3 // 4: math.sqrt(final / 0.2)}
    ),
}


@pytest.mark.parametrize("schedule", OPTAX)
@pytest.mark.parametrize("final", [0.002, 0.05])
def test_the_rates_after_the_warmup_are_those_of_optax(schedule: str, final: float) -> None:
    rate = learning_rates(schedule, peak=0.2, epochs=3, steps_per_epoch=20, warmup_steps=8, final_rate=final)
    theirs = OPTAX[schedule](52, final)
    np.testing.assert_allclose([rate(8 + step) for step in range(52)], [theirs(step) for step in range(52)], rtol=1e-5)
    np.testing.assert_allclose([rate(step) for step in range(8)], [0.025 * (step + 1) for step in range(8)])


def test_one_cycle_is_that_of_optax() -> None:
    rate = learning_rates("one-cycle", peak=0.2, epochs=2, steps_per_epoch=50, final_rate=0.2 / 25e4)
    theirs = optax.cosine_onecycle_schedule(100, 0.2)
    np.testing.assert_allclose([rate(step) for step in range(100)], [theirs(step) for step in range(100)], rtol=1e-4)


@pytest.mark.parametrize(("schedule", "part"), [("step", 1e-2), ("exponential", 1e-3), ("linear", 0), ("one-cycle", 0)])
def test_the_final_rate_that_ships(schedule: str, part: float) -> None:
    rate = learning_rates(schedule, peak=3, epochs=2, steps_per_epoch=50)
    np.testing.assert_allclose(rate(100), 3 * part, rtol=1e-12)


def test_constant_rises_by_step_and_stays() -> None:
    rate = learning_rates("constant", peak=1, epochs=4, steps_per_epoch=2, warmup_epochs=2)
    assert [rate(step) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_cosine_rises_by_step_and_falls_to_zero() -> None:
    rate = learning_rates("cosine", peak=2, epochs=5, steps_per_epoch=2, warmup_epochs=1)
    rates = [rate(step) for step in range(10)]
    assert rates[:3] == [1, 2, 2]
    np.testing.assert_allclose(rates[6], 1)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rate(10) == 0


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "step", "exponential"])
def test_a_warmup_as_long_as_the_run_only_rises(schedule: str) -> None:
    rate = learning_rates(schedule, peak=1, epochs=2, steps_per_epoch=2, warmup_epochs=4)
    assert [rate(step) for step in range(4)] == [0.125, 0.25, 0.375, 0.5]


@given(
    st.sampled_from(SCHEDULES),
    st.integers(1, 40),
    st.integers(1, 5),
    st.none() | st.integers(0, 60),
    st.floats(1e-12, 1e6),
)
def test_every_schedule_trains_and_stays_within_the_peak(
    schedule: str, epochs: int, steps: int, warmup: int | None, peak: float
) -> None:
    rate = learning_rates(schedule, peak=peak, epochs=epochs, steps_per_epoch=steps, warmup_epochs=warmup)
    rates = [rate(step) for step in range(epochs * steps)]
    assert all(0 <= value <= peak for value in rates)
    assert max(rates) > 0


@pytest.mark.parametrize("peak", [-1e-9, math.nan, math.inf, 1e39])
def test_peak_is_refused(peak: float, refusal: Callable[..., str]) -> None:
    message = refusal(UsageError, lambda: learning_rates("paper", peak=peak, epochs=3, steps_per_epoch=1))
    assert str(peak) in message
    assert "--learning-rate" in message


def test_the_rest_is_refused(refusal: Callable[..., str]) -> None:
    def refused(schedule: str = "paper", epochs: int = 3, warmup: int | None = None) -> str:
        return refusal(
            UsageError,
            lambda: learning_rates(schedule, peak=1, epochs=epochs, steps_per_epoch=1, warmup_epochs=warmup),
        )

    assert "'quadratic'" in refused(schedule="quadratic")
    assert ", ".join(SCHEDULES) in refused(schedule="quadratic")
    assert "--epochs is 0" in refused(epochs=0)
    assert "--warmup-epochs is -1" in refused(warmup=-1)
