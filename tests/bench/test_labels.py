"""The runs of a benchmark have labels of their own, and those of a suite the forms that it names."""

from __future__ import annotations

from typing import Any

import pytest
from plugins.bench_rows import row

from sonew_compiled.bench._charts import charts_of
from sonew_compiled.bench.plan import Plan, Run, make_runs
from sonew_compiled.bench.suites import SUITES, Suite
from sonew_compiled.presets import optimizer_settings


def runs_of(suite: Suite, **changed: Any) -> tuple[Run, ...]:
    asked: dict[str, Any] = {
        "model": suite.model,
        "optimizers": suite.optimizers,
        "forms": suite.forms,
        "precisions": suite.precisions,
        "places": [("cpu", "local-task")],
        "batch_size": 1000,
        "seeds": suite.seeds,
        "epochs": suite.epochs,
        "steps": suite.steps,
        "data": suite.data,
        "data_dir": None,
    }
    return make_runs(**asked | changed)


def test_the_suite_of_the_paper_has_both_sketches() -> None:
    runs = runs_of(SUITES["paper"], precisions=("f32",))
    assert len(runs) == len(SUITES["paper"].optimizers) + 1
    ranks = [run.optimizer.values["rank"] for run in runs if run.optimizer.name == "rfdson"]
    assert ranks == [1, 4]
    labels = Plan(runs=runs).labels()
    assert len({*labels}) == len(labels)
    assert "rfdson f32 cpu on local-task seed 0, rank 1" in labels
    assert "adam f32 cpu on local-task seed 0" in labels, "nothing else has its label"


def test_an_option_replaces_the_setting_of_the_forms() -> None:
    (run,) = runs_of(SUITES["paper"], optimizers=("rfdson",), precisions=("f32",), settings={"rank": 2})
    assert run.optimizer.values["rank"] == 2
    runs = runs_of(SUITES["paper"], optimizers=("rfdson",), precisions=("f32",), settings={"b1": 0.5})
    assert [(run.optimizer.values["rank"], run.optimizer.values["b1"]) for run in runs] == [(1, 0.5), (4, 0.5)]


@pytest.mark.parametrize("kind", ["train", "time"])
def test_lines_of_one_optimizer_at_two_rates_are_told_apart(kind: str) -> None:
    """Two bars of one name lie over each other in the report, and a legend with a name twice says nothing."""
    rates = [optimizer_settings("adam").to_json() | {"learning_rate": rate} for rate in (1e-3, 2e-3)]
    made = row(kind=kind)
    rows = [*({**made, "settings": made["settings"] | {"optimizer": rate}} for rate in rates), row("sgd", kind=kind)]
    charts = charts_of(rows)
    assert charts
    for chart in charts:
        names = [series.label for series in chart.series]
        assert len({*names}) == len(names), chart.name
    assert {series.label for chart in charts for series in chart.series} >= {
        "adam f32, learning rate 0.001",
        "adam f32, learning rate 0.002",
        "sgd f32",
    }
