"""`sonew bench`: rows and the report; no finished run is lost or repeated."""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonew_compiled.bench import benchmark, rows, suites
from sonew_compiled.bench._apart import RunError, call_apart
from sonew_compiled.bench._elsewhere import Elsewhere
from sonew_compiled.bench._flops import step_flops
from sonew_compiled.bench._pairs import measure_pairs
from sonew_compiled.bench._table import markdown
from sonew_compiled.bench._traffic import update_bytes
from sonew_compiled.bench.plan import Plan, Run, make_runs
from sonew_compiled.bench.report import write_report
from sonew_compiled.errors import UsageError
from sonew_compiled.models import load_model
from sonew_compiled.presets import OPTIMIZERS, PRECISIONS, optimizer_settings

Sonew = Callable[..., Any]
Task = Callable[..., dict[str, Any]]
COMMON = ("--model", "small_model:model", "--batch-size", 20, "--data", "data.npz", "--pairs", 1)


@pytest.fixture(scope="module")
def bench(small: Any, tmp_path_factory: pytest.TempPathFactory, sonew_apart: Sonew) -> Path:
    """A folder with the small model and a finished benchmark, `out`: Adam in float32, trained, with JAX beside it."""
    path = tmp_path_factory.mktemp("bench")
    shutil.copy(small.path / "small_model.py", path)
    shutil.copy(small.data, path)
    ended = sonew_apart(
        *("bench", "-o", "out", *COMMON, "--optimizer", "adam", "--precision", "f32"),
        *("--epochs", 2, "--vs", "jax", "--target-loss", 1e9, "--target-loss", 0),
        cwd=path,
    )
    assert ended.code == 0, ended.err
    return path


@pytest.fixture
def folder(bench: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of `bench`, which is the working directory."""
    path = shutil.copytree(bench, tmp_path / "bench")
    monkeypatch.chdir(path)
    return path


def the_rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in rows.read_rows(folder / "out") if row["kind"] == kind]


def test_a_row_has_every_column(bench: Path) -> None:
    (row,) = the_rows(bench, "train")
    assert row["error"] is None
    for key in ("first_step_seconds", "step_p50_seconds", "step_p95_seconds", "compile_seconds", "artifact_bytes"):
        assert row[key] > 0
    assert row["peak_resident_bytes"] > 10e6
    assert row["state_bytes_per_parameter"] == pytest.approx(12, abs=0.1)
    assert row["steps"] == 18
    assert [point["epoch"] for point in row["curve"]] == [1, 2]
    assert math.isfinite(row["train_loss"])
    assert math.isfinite(row["test_loss"])
    assert row["to_loss"][0] == {"loss": 1e9, "steps": 9, "seconds": row["curve"][0]["seconds"]}
    assert row["to_loss"][1] == {"loss": 0.0, "steps": None, "seconds": None}
    # Five products of 20 x 36 x 5: two forward, and three backward, since the input needs no gradient.
    assert row["step_flops"] > 2 * 5 * 20 * 36 * 5
    assert row["gflops"] == pytest.approx(row["step_flops"] / row["step_p50_seconds"] / 1e9)
    assert 0 < row["flops_share"] < 1
    assert row["settings"]["optimizer"] == optimizer_settings("adam").to_json()
    assert (row["schema"], row["host"]) == (2, platform.node())
    assert re.fullmatch("[0-9a-f]{12}", row["machine_id"])
    assert min(row["step_stretches_seconds"]) <= row["step_p95_seconds"]
    assert len(row["step_stretches_seconds"]) == 10
    assert row["machine"]["threads"] >= 1
    assert row["machine"]["device"] == "local-task"
    assert {"jax", "iree-base-compiler", "sonew-compiled"} <= row["versions"].keys()
    assert re.fullmatch("[0-9a-f]{64}", row["bundle"])


def test_jax_is_a_row_of_its_own(bench: Path) -> None:
    (row,) = the_rows(bench, "jax")
    (compiled,) = the_rows(bench, "train")
    assert row["settings"] == compiled["settings"]
    assert row["bundle"] == compiled["bundle"]
    assert len(row["ratio_per_pair"]) == 1
    assert row["ratio"] == pytest.approx(row["compiled_step_seconds"] / row["step_p50_seconds"])


def test_the_report_is_whole(bench: Path) -> None:
    out = bench / "out"
    page = (out / "report.html").read_text(encoding="utf-8")
    # Nothing is loaded: what refers to something outside stands within Plotly's own code.
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)\s*=|url\(|@import", outside)
    assert re.findall(r'class="chart" id="([\w-]+)"', page) == [
        *("loss-epoch", "loss-seconds", "step-time", "memory", "roofline")
    ]
    for name in ("loss-epoch", "loss-seconds", "step-time", "memory", "roofline"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / f"{name}.svg").read_text(encoding="utf-8")
    table = (out / "table.md").read_text(encoding="utf-8").splitlines()
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1


def test_finished_rows_are_not_run_again(folder: Path, sonew: Sonew) -> None:
    before = (folder / "out/rows.jsonl").read_bytes()
    line = ("bench", "-o", "out", *COMMON, "--optimizer", "adam", "--precision", "f32", "--epochs", 2, "--vs", "jax")
    refused = sonew(*line)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--resume" in refused.err
    ended = sonew(*line, "--resume", "--json")
    assert ended.code == 0, ended.err
    assert "done before" in ended.err
    assert (folder / "out/rows.jsonl").read_bytes() == before
    assert [row["kind"] for row in ended.json] == ["train", "jax"]


@pytest.fixture
def without_processes(task_here: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process for each task would take most of a test's time; the `bench` of this file has them."""
    monkeypatch.setattr(benchmark, "call_apart", task_here)


@pytest.mark.usefixtures("without_processes")
def test_a_finished_training_has_the_target_losses_of_now(folder: Path) -> None:
    for goals in ((1e9,), (0.0, 1e9)):
        plan = Plan(runs=runs_of(epochs=2, steps=None), update=False, target_losses=goals)
        row = next(row for row in benchmark.run_plan(plan, folder / "goals", resume=True) if row["kind"] == "train")
        assert [(each["loss"], each["steps"] is not None) for each in row["to_loss"]] == [(x, x > 0) for x in goals]
    assert len(rows.read_rows(folder / "goals")) == 1


def test_a_cut_off_line_is_run_again_and_a_damaged_one_refused(folder: Path, sonew: Sonew) -> None:
    path = folder / "out/rows.jsonl"
    first, second = path.read_text(encoding="utf-8").splitlines()
    path.write_text(first + "\n" + second[:50], encoding="utf-8")
    assert len(rows.read_rows(folder / "out")) == 1
    rows.append_row(folder / "out", json.loads(second))
    assert path.read_text(encoding="utf-8") == first + "\n" + second + "\n"
    # An editor may remove the last line break.
    path.write_text(first, encoding="utf-8")
    rows.append_row(folder / "out", json.loads(second))
    assert path.read_text(encoding="utf-8") == first + "\n" + second + "\n"
    path.write_text(f"{first}\nnonsense\n{second}\n", encoding="utf-8")
    ended = sonew("bench", "-o", "out", *COMMON, "--steps", 1, "--resume")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "rows.jsonl line 2" in ended.err


def runs_of(**changed: Any) -> tuple[Run, ...]:
    asked: dict[str, Any] = {
        "model": "small_model:model",
        "optimizers": ["adam"],
        "precisions": ["f32"],
        "batch_size": 20,
        "places": [("cpu", "local-task")],
        "seeds": [0],
        "epochs": None,
        "steps": 1,
        "data": "data.npz",
        "data_dir": None,
        **changed,
    }
    return make_runs(**asked)


def test_settings_replace_those_of_the_preset() -> None:
    (run,) = runs_of(settings={"b1": 0.5, "rank": None})
    assert run.optimizer == optimizer_settings("adam", b1=0.5)
    with pytest.raises(UsageError, match=r"--b1 0\.5 does not go with sgd"):
        runs_of(optimizers=["sgd"], settings={"b1": 0.5})


@pytest.mark.parametrize(
    ("asked", "preset"),
    [
        ({"epochs": 100, "steps": None}, "long"),
        ({"epochs": 99, "steps": None}, "short"),
        ({"epochs": None, "steps": 100}, "short"),
        ({"epochs": 100, "steps": None, "model": "classifier"}, "short"),
        ({"epochs": 100, "steps": None, "settings": {"b1": 0.9, "rank": None}}, "short"),
        ({"epochs": 100, "steps": None, "learning_rate": 1e-3}, "short"),
    ],
)
def test_runs_take_the_preset_of_their_length(asked: dict[str, Any], preset: str) -> None:
    (run,) = runs_of(optimizers=["tridiag-sonew"], **{"model": "autoencoder"} | asked)
    assert (run.optimizer == optimizer_settings(preset="long")) == (preset == "long")
    assert (run.optimizer.values["eps_mode"] == "absolute") == (preset == "long")
    assert run.optimizer.learning_rate == asked.get("learning_rate", run.optimizer.learning_rate)


def test_operations_are_those_of_a_step_without_the_roots() -> None:
    model = load_model("autoencoder-small")
    (seldom,), (always,) = (runs_of(optimizers=["shampoo"], settings={"precond_interval": n}) for n in (20, 1))
    assert 10 * step_flops(model, seldom) < step_flops(model, always)


def test_a_changed_bundle_or_version_is_run_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def answer(task: str, **request: Any) -> dict[str, Any]:
        calls.append(task.rpartition(":")[2])
        return {"step_flops": 1.0, "step_p50_seconds": 1.0, "flops_per_second": 1.0, "copy_bytes_per_second": 1.0}

    monkeypatch.setattr(benchmark, "call_apart", answer)
    plan = Plan(runs=runs_of(epochs=2, steps=None, schedule="cosine"), update=False)
    benchmark.run_plan(plan, folder / "out", resume=True)
    assert calls == []
    monkeypatch.setattr(benchmark, "versions", lambda: {"jax": "0"})
    benchmark.run_plan(plan, folder / "out", resume=True)
    assert calls == ["compile_bundle", "measure_limits", "train_bundle"]
    calls.clear()
    (bundle,) = (path for path in (folder / "out/bundles").iterdir() if path.is_dir())
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    found = benchmark.run_plan(plan, folder / "out", resume=True)
    assert "train_bundle" in calls
    assert [row["kind"] for row in found] == ["train", "jax"], "a later row replaces an earlier one"


@pytest.mark.usefixtures("without_processes")
def test_a_run_that_fails_is_a_row_and_is_tried_again(folder: Path) -> None:
    (bad,) = runs_of(data="missing.npz")
    good = Run(**{**bad.__dict__, "data": "data.npz"})
    plan = Plan(runs=(bad, good), update=False)
    failed, timed = benchmark.run_plan(plan, folder / "new")
    assert "missing.npz" in failed["error"]
    assert timed["error"] is None
    assert timed["steps"] == 2
    assert "missing.npz" in markdown([failed, timed])
    said: list[str] = []
    benchmark.run_plan(plan, folder / "new", resume=True, say=said.append)
    assert any("failed" in line for line in said)
    assert len(rows.read_rows(folder / "new")) == 3
    assert write_report([failed], folder / "new"), "a report of nothing but failures"


def test_a_process_that_dies_is_an_error(folder: Path) -> None:
    (folder / "small_model.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    (run,) = runs_of()
    with pytest.raises(RunError, match="SIGSEGV"):
        call_apart("sonew_compiled.bench._row_tasks:compile_bundle", run=run.settings(), bundle="new.bundle")


def test_the_share_of_the_update(folder: Path) -> None:
    (bundle,) = (path for path in (folder / "out/bundles").iterdir() if path.is_dir())
    (run,) = runs_of()
    measured = call_apart(
        "sonew_compiled.bench._row_tasks:time_update", run=run.settings(), bundle=str(bundle), pairs=2
    )
    assert measured["update_bytes"] == 28 * 360 + 8  # and the count, read and written
    assert measured["optimizer_share"] == pytest.approx(measured["update_seconds"] / measured["bare_step_seconds"])


@pytest.mark.parametrize(
    ("optimizer", "bands", "expected"), [("tridiag-sonew", 2, 48), ("band-sonew", 5, 84), ("adam", 1, 28)]
)
def test_bytes_of_an_update(optimizer: str, bands: int, expected: int) -> None:
    assert update_bytes(optimizer, parameters=4, gradients=4, state=4 * (1 + bands)) == expected


def test_a_thing_is_timed_in_another_process() -> None:
    with Elsewhere(functools.partial(functools.partial, time.sleep, 0.05)) as other:
        pairs = measure_pairs(lambda: None, other, 2, warm_up=0)
    assert min(pairs.b) > 0.05
    with pytest.raises(RunError, match="ValueError: invalid literal"), Elsewhere(functools.partial(int, "x")):
        pass
    with (
        pytest.raises(RunError, match="ended with exit code 7"),
        Elsewhere(functools.partial(functools.partial, os._exit, 7)) as other,
    ):
        other()


def test_pairs_take_turns() -> None:
    order: list[str] = []
    pairs = measure_pairs(lambda: order.append("a"), lambda: order.append("b"), 4, warm_up=1)
    assert "".join(order) == "ab" + "abbaabba"
    assert len(pairs.each) == 4


@pytest.mark.usefixtures("without_processes")
def test_static_figures_of_what_cannot_run_here(folder: Path) -> None:
    (run,) = runs_of(places=[("cpu:aarch64", "")], seeds=[3, 4])
    assert (run.kind, run.seed) == ("static", 3)
    (row,) = benchmark.run_plan(Plan(runs=(run,), caveat="no ranking"), folder / "static")
    assert markdown([row]).endswith("|\n\nno ranking\n")
    assert row["error"] is None
    assert row["code_bytes"] > 1000
    assert row["machine"] is None


def test_settings_survive_json() -> None:
    (run,) = runs_of()
    assert Run.from_settings(json.loads(json.dumps(run.settings()))) == run
    (other,) = runs_of(learning_rate=0.5, seeds=[1])
    assert run.bundle_name == other.bundle_name, "neither is compiled in"
    (wider,) = runs_of(batch_size=30)
    assert run.bundle_name != wider.bundle_name


def test_presets_are_of_what_there_is() -> None:
    assert {*suites.SUITES} == {"quick", "paper", "devices", "precision"}
    for preset in suites.SUITES.values():
        assert preset.optimizers
        assert {*preset.optimizers} <= {*OPTIMIZERS}
        assert {*preset.precisions} <= {*PRECISIONS}
    assert suites.SUITES["paper"].epochs == 100
    assert "no ranking" in suites.SUITES["quick"].caveat
    assert suites.SUITES["precision"].precisions == PRECISIONS


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--epochs 1 --steps 1", "leave one of them out"),
        ("--optimizer nonsense", "adam"),
        ("--preset nonsense", "paper"),
        ("--target-loss nan", "give a number of float32, such as 60"),
        ("--target-loss 1e40", "give a number of float32, such as 60"),
        ("--clip-norm 1e300", "give a positive number of float32, such as 1.0"),
        ("--target nonsense", "'nonsense'"),
        ("--device nonsense", "local-task"),
        ("--device local-task --target cuda", "cuda:sm_80"),
        ("--data nonsense.npz", "nonsense.npz"),
        ("--model nonsense", "autoencoder"),
        ("--preset speed --seed 1", "--seed does not go with --preset speed"),
        ("--preset speed --vs jax", "--vs does not go with --preset speed"),
        ("--preset speed --target-loss 1", "--target-loss does not go with --preset speed"),
        ("--preset speed --weight-decay 0", "--weight-decay does not go with --preset speed"),
        ("--preset speed --data nonsense.npz", "nonsense.npz"),
        ("--preset speed --batch-size 10000", "mnist-10k has 9,000 examples"),
    ],
)
def test_bad_input_is_one_line(folder: Path, sonew: Sonew, line: str, said: str) -> None:
    ended = sonew("bench", "-o", "new", *line.split())
    assert ended.code == 2, ended.err
    assert ended.err.count("\n") == 1, ended.err
    assert said in ended.err
    assert not (folder / "new").exists()


def test_a_training_outlives_the_timing_after_it(
    folder: Path, task_here: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(task: str, **request: Any) -> dict[str, Any]:
        if task.endswith(":time_update"):
            raise RunError("out of memory")
        return task_here(task, **request)

    monkeypatch.setattr(benchmark, "call_apart", failing)
    said: list[str] = []
    (row,) = benchmark.run_plan(Plan(runs=runs_of(epochs=2, steps=None)), folder / "kept", say=said.append)
    assert (row["error"], row["steps"] > 0, "update_seconds" in row) == (None, True, False)
    assert "the update alone was not timed: out of memory" in said


@pytest.mark.usefixtures("without_processes")
def test_torch_is_asked_for_where_there_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "has_torch", lambda: False)
    said: list[str] = []
    plan = Plan(runs=runs_of(epochs=2, steps=None), update=False, versus=("torch",))
    found = benchmark.run_plan(plan, folder / "out", resume=True, say=said.append)
    assert sum("pip install torch" in line for line in said) == 1
    assert not [row for row in found if row["kind"].startswith("torch")]


def test_epochs_or_steps() -> None:
    with pytest.raises(UsageError, match="--epochs"):
        runs_of(epochs=1)
