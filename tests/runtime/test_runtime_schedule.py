"""The learning rate over a run."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonew_compiled.errors import UsageError
from sonew_compiled.runtime.schedule import learning_rates
from sonew_compiled.train_settings import SCHEDULES, default_warmup_epochs


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


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
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

    assert "'linear'" in refused(schedule="linear")
    assert "paper, constant, cosine" in refused(schedule="linear")
    assert "0 epochs" in refused(epochs=0)
    assert "-1 epochs of warm-up" in refused(warmup=-1)
