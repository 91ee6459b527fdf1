"""Rows of several machines: merged, compared and exported, and none of them lost."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plugins.bench_rows import row

from sonew_compiled.bench import benchmark, rows
from sonew_compiled.bench._circumstances import Watch, _throttle_count, machine_id, unsteadiness
from sonew_compiled.bench._lines import machine_names
from sonew_compiled.bench._machine import versions
from sonew_compiled.bench._row_format import SCHEMA
from sonew_compiled.bench._table import markdown
from sonew_compiled.bench.compare import METRICS, compare, means, sides_of
from sonew_compiled.bench.plan import Plan, make_runs
from sonew_compiled.errors import SonewError

Sonew = Callable[..., Any]
RESULTS = Path(__file__).parents[2] / "docs/results"


def write(folder: Path, found: Sequence[rows.Row]) -> Path:
    folder.mkdir(exist_ok=True)
    rows.write_rows(folder, found)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: `laptop`, and `server`, made from it by renaming, with steps of half the time."""
    monkeypatch.chdir(tmp_path)
    laptop = [row(), row(step=0.022, seed=1), row("sgd", step=0.01)]
    write(tmp_path / "laptop", laptop)
    server = [
        each | {"machine_id": "bbbb", "host": "server", "step_p50_seconds": each["step_p50_seconds"] / 2}
        for each in laptop
    ]
    write(tmp_path / "server", server)
    return tmp_path


files = st.lists(
    st.lists(
        st.builds(
            row,
            st.sampled_from(["adam", "sgd"]),
            seed=st.integers(0, 2),
            machine=st.sampled_from(["aaaa", "bbbb", "cccc"]),
            host=st.sampled_from([None, "laptop"]),
            step=st.floats(1e-3, 1.0),
            date=st.sampled_from(["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]),
        ),
        min_size=1,
        max_size=6,
    ),
    min_size=1,
    max_size=4,
)


def keys(found: Sequence[rows.Row]) -> set[str]:
    return {json.dumps([each["kind"], each["settings"], each["machine_id"]], sort_keys=True) for each in found}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=files)
def test_no_row_is_lost(tmp_path: Path, parts: list[list[rows.Row]]) -> None:
    for index, part in enumerate(parts):
        write(tmp_path / str(index), part)
    read = [rows.read_rows(tmp_path / str(index)) for index in range(len(parts))]
    assert read == parts
    merged = rows.merged(read)
    assert all(each in merged for part in parts for each in part)
    assert all(any(each in part for part in parts) for each in merged)
    assert rows.merged([merged, *read]) == merged, "what is there already is not added again"
    # The table has a line for each machine's settings, and the latest of the rows that differ in nothing else.
    assert keys(rows.latest(merged)) == keys(merged)
    assert len(rows.latest(merged)) == len(keys(merged))
    for kept in rows.latest(merged):
        assert kept["date"] == max(each["date"] for each in merged if keys([each]) == keys([kept]))


def test_merge_keeps_both_machines(folder: Path, sonew: Sonew) -> None:
    ended = sonew("bench", "merge", "laptop", "server/rows.jsonl", "-o", "both")
    assert ended.code == 0, ended.err
    assert "6 rows of 2 machines" in ended.err
    assert rows.read_rows(folder / "both") == [*rows.read_rows(folder / "laptop"), *rows.read_rows(folder / "server")]
    table = (folder / "both/table.md").read_text(encoding="utf-8")
    assert [line.split(" | ")[1] for line in table.splitlines()[2:]] == ["laptop", "laptop", "server", "server"]
    # Into a folder that is a source too, and into one with rows of its own.
    assert sonew("bench", "merge", "both", "laptop", "-o", "both").code == 0
    assert len(rows.read_rows(folder / "both")) == 6
    refused = sonew("bench", "merge", "laptop", "-o", "server")
    assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_compare_shows_both_machines(folder: Path, sonew: Sonew) -> None:
    ended = sonew("bench", "compare", "laptop", "server")
    assert ended.code == 0, ended.err
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in ended.out.splitlines()[2:]]
    # Adam's rows: 20 and 22 ms against 10 and 11, so that the ratios of all pairs are 10/22 to 11/20.
    assert lines[0] == ["adam f32", "laptop", "server", "21", "10.5", "0.500", "0.455 to 0.55"]
    assert lines[1] == ["sgd f32", "laptop", "server", "10", "5", "0.500", "one value each"]
    assert lines[2] == ["all (geometric mean)", "laptop", "server", "", "", "0.500", ""]
    found = sonew("bench", "compare", "laptop", "server", "--metric", "train-loss", "--json").json
    assert [each["ratio"] for each in found["runs"]] == [1.0, 1.0]
    assert found["means"] == [{"baseline": "laptop", "other": "server", "ratio": 1.0}]


def test_compare_of_a_merged_folder_is_that_of_its_parts(folder: Path, sonew: Sonew) -> None:
    assert sonew("bench", "merge", "laptop", "server", "-o", "both").code == 0
    assert sonew("bench", "compare", "both").out == sonew("bench", "compare", "laptop", "server").out


def test_one_machine_before_and_after(folder: Path, sonew: Sonew) -> None:
    write(folder / "after", [row(step=0.03, date="2026-12-01T00:00:00Z", versions={"jax": "0.11.0"})])
    ended = sonew("bench", "compare", "laptop", "after")
    assert "| laptop in laptop | laptop in after | 20 | 30 | 1.500 |" in ended.out
    assert "jax differs: 0.10.2, 0.11.0" in ended.err


def test_options_come_from_a_file_for_the_measurement_and_for_what_is_below_it(folder: Path, sonew: Sonew) -> None:
    (folder / "sonew.toml").write_text('[bench]\nepochs = 0\n[bench.compare]\nmetric = "train-loss"\n')
    assert "'--epochs'" in sonew("--config", "sonew.toml", "bench").err
    (folder / "sonew.toml").write_text('[bench]\npairs = 3\n[bench.compare]\nmetric = "train-loss"\n')
    ended = sonew("--config", "sonew.toml", "bench", "compare", "laptop", "server")
    assert ended.out.startswith("| training loss of |"), ended.err


def test_a_spread_is_that_of_the_parts_of_a_run() -> None:
    slow, fast = (
        row(step=step, machine=machine, host=machine, step_stretches_seconds=[step * (1 + n / 100) for n in range(10)])
        for machine, step in (("aaaa", 0.02), ("bbbb", 0.01))
    )
    (found,), lonely = compare(sides_of([("rows", [slow, fast])]), METRICS["step"])
    assert (found.ratio, found.before, lonely) == (pytest.approx(0.5), pytest.approx(20.9), 0)
    assert found.low == pytest.approx(0.5 * 1.00 / 1.08, rel=0.02)
    assert found.high == pytest.approx(0.5 * 1.08 / 1.00, rel=0.02)


def test_another_device_is_compared_where_there_is_no_same_one() -> None:
    laptop = [row(), row(target="vulkan", device="vulkan", step=0.05)]
    gpu = [row(machine="bbbb", host="gpu", target="vulkan", device="vulkan", step=0.01)]
    gpu.append(row(machine="bbbb", host="gpu", target="cuda:sm_80", device="cuda", step=0.005))
    gpu.append(row("sgd", machine="bbbb", host="gpu"))
    found, lonely = compare(sides_of([("a", laptop), ("b", gpu)]), METRICS["step"])
    assert [(each.baseline, each.other, each.ratio) for each in found] == [
        ("laptop", "gpu", pytest.approx(0.2)),
        ("laptop, cpu on local-task", "gpu, cuda:sm_80 on cuda", pytest.approx(0.25)),
    ]
    assert lonely == 1
    assert means(found) == {}


def test_the_same_seeds_are_compared() -> None:
    """The losses of two seeds differ for no other reason."""
    ours = [row(seed=0, train_loss=1.0), row(seed=1, train_loss=5.0)]
    theirs = [row(machine="bbbb", host="gpu", seed=seed, train_loss=loss) for seed, loss in ((1, 5.5), (2, 9.0))]
    ((found,), lonely) = compare(sides_of([("a", ours), ("b", theirs)]), METRICS["train-loss"])
    assert (found.before, found.after, found.ratio) == (5.0, 5.5, pytest.approx(1.1))
    assert (found.run, lonely) == ("adam f32", 0)
    ((found,), _) = compare(sides_of([("a", ours), ("b", theirs[1:])]), METRICS["train-loss"])
    assert (found.run, found.before, found.after) == ("adam f32, other seeds", 3.0, 9.0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("compare laptop", "one machine"),
        ("compare laptop nowhere", "nowhere has no rows"),
        ("compare laptop server --metric memory", "--metric memory"),
        ("merge laptop nowhere -o new", "nowhere has no rows"),
        ("export laptop -o new.xlsx", ".csv"),
        ("--epochs 2 compare laptop server", "--epochs belongs to a measurement"),
    ],
)
def test_bad_input_is_one_line(folder: Path, sonew: Sonew, line: str, said: str) -> None:
    ended = sonew("bench", *line.split())
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert said in ended.err
    assert not (folder / "new").exists()


def test_an_export_holds_every_value(folder: Path, sonew: Sonew) -> None:
    wanted = [*rows.read_rows(folder / "laptop"), *rows.read_rows(folder / "server")]
    for name in ("rows.csv", "rows.parquet"):
        ended = sonew("bench", "export", "laptop", "server", "-o", name)
        assert ended.code == 0, ended.err
    with (folder / "rows.csv").open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [each["host"] for each in found] == [each["host"] for each in wanted]
    assert [float(each["step_p50_seconds"]) for each in found] == [each["step_p50_seconds"] for each in wanted]
    assert [json.loads(each["curve"]) for each in found] == [each["curve"] for each in wanted]
    assert {each["error"] for each in found} == {""}
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'sonew-compiled[parquet]'")
    table = parquet.read_table(folder / "rows.parquet").to_pylist()
    assert [each["settings.optimizer.name"] for each in table] == [
        each["settings"]["optimizer"]["name"] for each in wanted
    ]
    assert [each["step_p50_seconds"] for each in table] == [each["step_p50_seconds"] for each in wanted]
    assert [each["curve"] for each in table] == [each["curve"] for each in wanted]


def plan() -> Plan:
    """A plan of one run, which is never compiled here."""
    runs = make_runs(
        model="small_model:model",
        optimizers=["adam"],
        precisions=["f32"],
        places=[("cpu", "local-task")],
        batch_size=20,
        seeds=[0],
        epochs=2,
        steps=None,
        data="data.npz",
        data_dir=None,
    )
    return Plan(runs=runs, update=False, caveat="no ranking")


def test_a_row_of_another_machine_is_kept_and_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = plan().runs
    theirs = row() | {"settings": run.settings(), "versions": versions(), "bundle": None}
    rows.write_rows(tmp_path, [theirs])
    answer = {"step_flops": 2.0, "step_p50_seconds": 1.0, "flops_per_second": 1.0, "copy_bytes_per_second": 1.0}
    monkeypatch.setattr(benchmark, "call_apart", lambda task, **request: dict(answer))
    kept, ours = benchmark.run_plan(plan(), tmp_path, resume=True, host="here")
    assert kept == theirs | {"to_loss": []}
    assert (ours["machine_id"], ours["host"]) == (machine_id(), "here")
    # Twice the measured limit, also after that was measured anew.
    assert ours["flops_share"] == 2
    assert "quicker than the product" in ours["share_reasons"]["flops_share"]
    *table, _, caveat, _, reason = markdown([kept, ours]).splitlines()
    assert ["200 % (1)" in line for line in table] == [False, False, False, True]
    assert caveat == "no ranking"
    assert reason.startswith("(1) the compiled products are quicker")


def test_a_share_above_one_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = ({"flops_per_second": f, "copy_bytes_per_second": c} for f, c in ((1.0, 4.0), (8.0, 3.0)))
    limits = iter([first, second])

    def answer(task: str, **request: Any) -> dict[str, Any]:
        return next(limits) if task.endswith("measure_limits") else {"step_flops": 2.0, "step_p50_seconds": 1.0}

    monkeypatch.setattr(benchmark, "call_apart", answer)
    (found,) = benchmark.run_plan(plan(), tmp_path)
    assert found["roofline"] == {"flops_per_second": 8.0, "copy_bytes_per_second": 4.0}
    assert (found["flops_share"], found["share_reasons"]) == (0.25, {})


@pytest.mark.parametrize("name", ["order-20", "versus-torch"])
def test_rows_of_the_first_schema_are_read(name: str) -> None:
    path = RESULTS / f"{name}.jsonl"
    found = rows.read_rows(path)
    raw = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [each | old == each for each, old in zip(found, raw, strict=True)] == [True] * len(raw)
    assert {each["schema"] for each in found} == {SCHEMA}
    assert all(each["machine_id"].startswith("old-") for each in found)
    assert len(rows.latest(found)) == len(found)
    assert {name.partition(" old-")[0] for name in machine_names(found).values()} == {
        each["machine"]["cpu"] for each in raw
    }


def test_rows_of_a_later_schema_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(2 * (json.dumps(row(schema=SCHEMA + 1)) + "\n"))
    with pytest.raises(SonewError, match=f"schema {SCHEMA + 1}, of a later sonew-compiled"):
        rows.read_rows(tmp_path)


def test_machines_of_one_name_are_told_apart() -> None:
    found = [
        row(),
        row(machine="bbbb"),
        row(machine="cccc", host=None),
        row(machine="dddd", host=None) | {"machine": None},
    ]
    assert machine_names(found) == {"aaaa": "laptop aaaa", "bbbb": "laptop bbbb", "cccc": "A Processor", "dddd": "dddd"}


def test_what_a_row_says_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = "sonew_compiled.bench._circumstances"
    found = Watch("laptop").described()
    assert found["date"].endswith("Z")
    assert found["memory_bytes"] > 1e8
    assert found["load_before"] >= 0
    assert found["host"] == "laptop"
    assert found["machine_id"] == machine_id()
    assert Watch(None).described()["host"] is None
    # Another name, and so another machine.
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.platform.node", lambda: "renamed")
        assert machine_id.__wrapped__() != found["machine_id"]
    # A core that has slowed down for heat meanwhile.
    count = tmp_path / "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    count.parent.mkdir(parents=True)
    count.write_text("3\n")
    monkeypatch.setattr(f"{module}._SYS", tmp_path)
    watch = Watch(None)
    count.write_text("5\n")
    assert _throttle_count() == 5
    assert "the processor throttled itself 2 times" in watch.described()["warnings"]


def test_steps_that_slow_down_are_a_warning() -> None:
    assert unsteadiness([1.0, 1.01, 1.0, 0.99, 1.0, 1.02]) == []
    assert unsteadiness([1.0, 1.0, 1.1, 1.2, 1.2, 1.3]) == ["steps took 25% longer in the last third than in the first"]
    assert unsteadiness([1.0, 1.0, 2.0, 1.0, 1.0, 1.0]) == [
        "a stretch of the steps took 2.0 times as long as the median one"
    ]
    assert unsteadiness([1.0, 9.0]) == [], "too few to tell"
