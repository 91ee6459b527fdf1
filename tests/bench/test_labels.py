"""The runs of a benchmark have labels of their own, and those of a suite the forms that it names."""

from __future__ import annotations

from typing import Any

import pytest
from plugins.bench_rows import row

from sonew_compiled.bench._charts import charts_of
from sonew_compiled.bench._lines import lines_of
from sonew_compiled.bench._table import markdown
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


def test_the_long_preset_goes_with_its_schedule() -> None:
    """Its rate was found for that schedule, and all runs of a suite have the same one."""
    asked = {"optimizers": ("tridiag-sonew",), "precisions": ("f32",), "model": "autoencoder", "epochs": 100}
    for schedule, mode in (("paper", "absolute"), ("cosine", "relative")):
        (run,) = runs_of(SUITES["paper"], schedule=schedule, **asked)
        assert run.optimizer.values["eps_mode"] == mode, schedule


def test_an_option_replaces_the_setting_of_the_forms() -> None:
    (run,) = runs_of(SUITES["paper"], optimizers=("rfdson",), precisions=("f32",), settings={"rank": 2})
    assert run.optimizer.values["rank"] == 2
    runs = runs_of(SUITES["paper"], optimizers=("rfdson",), precisions=("f32",), settings={"b1": 0.5})
    assert [(run.optimizer.values["rank"], run.optimizer.values["b1"]) for run in runs] == [(1, 0.5), (4, 0.5)]


@pytest.mark.parametrize(
    ("first", "other", "words"),
    [
        ({"optimizer": {"eps_mode": "relative"}}, {"optimizer": {"eps_mode": "absolute"}}, "eps mode absolute"),
        ({"optimizer": {"state": "float"}}, {"optimizer": {"state": "int8"}}, "state int8"),
        ({"epochs": 2}, {"epochs": 20}, "epochs 20"),
        ({"data": "mnist"}, {"data": "mine.npz"}, "data mine.npz"),
        ({}, {"schedule": "cosine"}, "schedule cosine"),
    ],
)
def test_lines_are_told_apart_by_what_differs(first: dict[str, Any], other: dict[str, Any], words: str) -> None:
    made = row("tridiag-sonew")
    lines = lines_of(
        [
            {**made, "settings": made["settings"] | each | {"optimizer": of_row(made) | each.get("optimizer", {})}}
            for each in (first, other)
        ]
    )
    assert lines[1].label == f"tridiag-sonew f32, {words}"
    assert lines[0].label != lines[1].label
    assert f"| tridiag-sonew, {words} |" in markdown([each for line in lines for each in line.rows])


def of_row(made: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = made["settings"]["optimizer"]
    return settings


def test_the_models_of_a_folder_are_in_all_labels() -> None:
    """Whatever the optimizers are, their losses are of different things."""
    rows = [row("adam"), row("sgd", model="lstm:model")]
    assert [line.label for line in lines_of(rows)] == ["adam f32, model autoencoder-small", "sgd f32, model lstm:model"]
    assert [line.label for line in lines_of(rows[:1])] == ["adam f32"]


def test_a_seed_that_never_reached_a_loss_is_behind_the_others() -> None:
    goals = [{"loss": 1.0, "steps": steps, "seconds": steps} for steps in (100, 200, None, None)]
    made = [row(seed=seed, to_loss=[goal]) for seed, goal in enumerate(goals)]
    assert "| 1: 200 / 200 s |" in markdown(made[:3])
    assert "| 1: not reached |" in markdown(made)


def test_every_device_has_its_own_limit() -> None:
    attained = {"gflops": 100.0, "step_flops": 1e9, "step_bytes": 1e7}
    rows = [
        row(
            device=device,
            target=target,
            roofline={"flops_per_second": 1e9 * gflops, "copy_bytes_per_second": 40e9},
            **attained,
        )
        for device, target, gflops in (("local-task", "cpu", 126), ("cuda", "cuda:sm_80", 5000))
    ]
    (chart,) = [chart for chart in charts_of(rows) if chart.name == "roofline"]
    limits = {series.label for series in chart.series if series.label.startswith("limit")}
    assert limits == {"limit of local-task: 126 GFLOP/s, 40 GB/s", "limit of cuda: 5,000 GFLOP/s, 40 GB/s"}


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


def test_lines_are_medians_over_seeds() -> None:
    made = [
        row(kind="time", precision=precision, seed=seed, train_loss=seed, error="lost" if seed == 1 else None)
        for precision in ("f32", "bf16")
        for seed in (0, 1, 2)
    ]
    assert [(line.label, len(line.good), line.median("train_loss")) for line in lines_of(made)] == [
        ("adam f32", 2, 1),
        ("adam bf16", 2, 1),
    ]
