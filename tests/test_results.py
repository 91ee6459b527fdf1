"""The figures in the README and docs/results.md agree with the committed rows."""

from __future__ import annotations

import itertools
import json
import re
import statistics
from pathlib import Path
from typing import Any

import first_run
import generated
import paper_table
import precision_runs
import pytest

from sonew_compiled.bench.models import BATCHES
from sonew_compiled.bench.speed import GOALS
from sonew_compiled.bench.suites import SUITES
from sonew_compiled.presets import PRECISIONS, OptimizerSettings, best_of_studies, optimizer_settings, preset_for

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RESULTS / name).read_text(encoding="utf-8").splitlines()]


def losses(row: dict[str, Any], digits: int = 2) -> tuple[str, str]:
    return f"{row['train_loss']:.{digits}f}", f"{row['test_loss']:.{digits}f}"


def cells_of_study(row: dict[str, Any], settings: tuple[str, ...], *, digits: int) -> list[str]:
    """The cells of a study: the number of trials, the settings of the best trial, and its losses."""
    assert len(row["each"]) == row["trials"]
    assert row["train_loss"] == min(each["train_loss"] for each in row["each"] if each["train_loss"] is not None)
    best = [row["best"].get(key) for key in settings]
    return [str(row["trials"]), *("" if x is None else f"{x:.3g}" for x in best), *losses(row, digits)]


def table_rows(document: str) -> list[list[str]]:
    """The rows of all tables of a document, as the site has them."""
    text = generated.filled((ROOT / document).read_text(encoding="utf-8"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", text, re.M)]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("--epochs 20", "run-default-20"),
        ("--epochs 20 --schedule paper", "run-tridiag-20"),
        ("--epochs 20 --state int8 --schedule paper", "run-tridiag-int8-20"),
        ("--epochs 100", "run-long-100"),
        ("--epochs 100 --preset short --schedule paper", "run-tridiag-100"),
    ],
)
def test_runs_of_the_compiled_step(options: str, name: str) -> None:
    expected = losses(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))
    quoted = [row for row in table_rows("docs/results.md") if f"`sonew run --data mnist {options}`" in row]
    assert quoted
    for row in quoted:
        assert tuple(cell for cell in row if re.fullmatch(r"\d+\.\d\d", cell)) == expected


@pytest.mark.parametrize("path", first_run.PLACES, ids=lambda path: path.name)
def test_what_make_run_takes_is_measured(path: Path) -> None:
    """Without a row of a measurement there are no figures."""
    assert path.read_text(encoding="utf-8") == first_run.written(path, first_run.last_row())


def test_what_pip_takes_is_added_up() -> None:
    said = """Collecting jax
  Using cached jax-0.10.2-py3-none-any.whl.metadata (13 kB)
Downloading jax-0.10.2-py3-none-any.whl (3.1 MB)
Using cached click-8.2.1-py3-none-any.whl (500 kB)
"""
    assert first_run.downloaded(said) == pytest.approx(3.6)


def test_every_rate_of_adam_is_quoted() -> None:
    sweep = rows("adam-100.jsonl")
    assert len(sweep) >= 5
    table = table_rows("docs/results.md")
    for row in sweep:
        assert any(
            (float(cells[0]), *cells[1:]) == (row["learning_rate"], *losses(row))
            for cells in table[2:]
            if is_rate(cells)
        )


def is_rate(cells: list[str]) -> bool:
    return len(cells) == 3 and re.fullmatch(r"\d(\.\d+)?e-\d", cells[0]) is not None


def test_tridiagonal_beats_the_best_of_adam() -> None:
    best = min(rows("adam-100.jsonl"), key=lambda row: row["train_loss"])
    ours = json.loads((RESULTS / "run-tridiag-100.json").read_text(encoding="utf-8"))
    assert ours["steps"] == best["steps"]
    assert ours["train_loss"] < best["train_loss"]


# The names of the optimizers in the README.
SYSTEMS = {
    "Adam (optax)": "adam",
    "diagonal SONew": "diag-sonew",
    "tridiagonal SONew": "tridiag-sonew",
    "band-4 SONew": "band-sonew",
    "Shampoo, roots every 20 steps": "shampoo",
}


def test_the_table_of_the_readme_is_that_of_its_rows() -> None:
    found = {
        (row["settings"]["optimizer"]["name"], row["settings"]["precision"]): losses(row)
        for row in rows("paper-100.jsonl")
        if row["settings"]["seed"] == 0
    }
    assert found["tridiag-sonew", "f32"] == losses(
        json.loads((RESULTS / "run-long-100.json").read_text(encoding="utf-8"))
    )
    seconds = json.loads((RESULTS / "epoch-seconds.json").read_text(encoding="utf-8"))
    table = {cells[0]: cells[1:] for cells in table_rows("README.md")[2:]}
    assert table.keys() == SYSTEMS.keys()
    for name, cells in table.items():
        for precision, quoted in (("f32", cells[:3]), ("bf16", cells[3:])):
            system = (SYSTEMS[name], precision)
            assert tuple(quoted) == (*found[system], f"{seconds['-'.join(system)]:.1f}")
    short = losses(json.loads((RESULTS / "run-default-20.json").read_text(encoding="utf-8")))
    assert "{} ({} on the test set)".format(*short) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_settings_of_the_table_are_those_that_ship() -> None:
    for rows_of in paper_table.runs().values():
        for row in rows_of:
            settings = row["settings"]
            name, precision = settings["optimizer"]["name"], settings["precision"]
            preset = preset_for(name, model=settings["model"], precision=precision, epochs=settings["epochs"])
            shipped = optimizer_settings(
                name, precision=precision, preset=preset, rank=settings["optimizer"].get("rank")
            )
            assert OptimizerSettings.from_json(settings["optimizer"]) == shipped, (name, precision)


def test_the_mean_of_three_seeds_keeps_the_order_of_the_paper() -> None:
    """The page of results says so."""
    order = ("adam", "diag-sonew", "tridiag-sonew", "band-sonew", "shampoo")
    found = paper_table.runs()
    for name in order:
        assert [row["settings"]["seed"] for row in found[name, "f32"]] == [0, 1, 2], name
    means = [paper_table.mean(found[name, "f32"], "train_loss") for name in order]
    assert means == sorted(means, reverse=True)


def test_the_table_of_100_epochs_has_every_system_of_its_suite() -> None:
    suite = SUITES["paper"]
    systems = {
        paper_table.system({"name": name, **form}) for name in suite.optimizers for form in suite.forms.get(name, ({},))
    }
    assert paper_table.runs().keys() == {*itertools.product(systems, suite.precisions)}


def test_the_sweep_of_the_preset_is_quoted() -> None:
    table = table_rows("docs/results.md")
    for row in rows("tridiag-20-sweep.jsonl"):
        assert any(tuple(cells[2:]) == losses(row) for cells in table if len(cells) == 4)


@pytest.mark.parametrize(
    ("document", "file", "precision"),
    [("results", "tuned-20", "f32"), ("reference/precision", "tuned-20-bf16", "bf16")],
)
def test_the_best_of_every_study_is_quoted(document: str, file: str, precision: str) -> None:
    table = {cells[0]: cells[1:] for cells in table_rows(f"docs/{document}.md") if len(cells) == 8}
    studies = rows(f"{file}.jsonl")
    assert {(row["epochs"], row["data"], row["precision"]) for row in studies} == {(20, "mnist", precision)}
    assert {row["trials"] for row in studies} == {12 if precision == "f32" else 6}
    for row in studies:
        assert table[row["optimizer"]] == cells_of_study(row, ("learning_rate", "b1", "b2", "eps"), digits=2)


def test_a_search_starts_from_the_best_of_every_study() -> None:
    for row in rows("tuned-20.jsonl"):
        name, best = row["optimizer"], row["best"]
        shipped = optimizer_settings(name)
        ships = {key: {"learning_rate": shipped.learning_rate, **shipped.values}[key] for key in best}
        known = best_of_studies(name, model=row["model"], precision=row["precision"])
        assert known == ({} if ships == best else best), name
        assert not best_of_studies(name, model="perceptron:model", precision="f32")


def test_the_best_of_every_small_study_is_quoted() -> None:
    table = {tuple(cells[:2]): cells[2:] for cells in table_rows("docs/results.md") if len(cells) == 7}
    studies = rows("tuned-small-20.jsonl")
    assert {(row["model"], row["epochs"], row["data"]) for row in studies} == {("perceptron:model", 20, "mnist-10k")}
    full = ("ons", "full-adagrad", "natural-gradient")
    assert {(row["optimizer"], row["precision"]) for row in studies} == {
        *itertools.product(full, ("f32",)),
        *itertools.product(full[1:], ("bf16",)),
    }
    for row in studies:
        assert row["trials"] == (12 if row["precision"] == "f32" else 6)
        quoted = table[row["optimizer"], f"`{row['precision']}`"]
        assert quoted == cells_of_study(row, ("learning_rate", "eps"), digits=4)


def best_of(trials: list[dict[str, Any]]) -> dict[str, float]:
    """The settings of the trial with the least loss."""
    best = min((each for each in trials if each["train_loss"] is not None), key=lambda each: each["train_loss"])
    return {key: best[key] for key in ("learning_rate", "b1", "b2", "eps") if key in best}


def test_the_order_of_the_optimizers_is_that_of_its_rows() -> None:
    seeds: dict[str, dict[int, Any]] = {}
    for row in rows("order-20.jsonl"):
        settings = row["settings"]
        assert (settings["epochs"], settings["data"], settings["precision"], row["error"]) == (20, "mnist", "f32", None)
        seeds.setdefault(settings["optimizer"]["name"], {})[settings["seed"]] = row
    studies = {row["optimizer"]: row for row in rows("tuned-20.jsonl")}
    assert seeds.keys() <= studies.keys()
    best = {name: best_of(row["each"]) for name, row in studies.items()}
    means = {}
    table = {cells[0]: cells[1:6] for cells in table_rows("docs/results.md") if len(cells) == 7 and cells[0] in seeds}
    for name, found in seeds.items():
        assert sorted(found) == [1, 2, 3]
        for row in found.values():
            used = {key: row["settings"]["optimizer"][key] for key in best[name]}
            assert used == pytest.approx(best[name], rel=1e-2)
        train, test = ([found[seed][key] for seed in (1, 2, 3)] for key in ("train_loss", "test_loss"))
        means[name] = statistics.mean(train)
        assert table[name] == [f"{x:.2f}" for x in (*train, means[name], statistics.mean(test))]
    order = ("sgd", "momentum", "adam", "diag-sonew", "tridiag-sonew", "band-sonew", "shampoo")
    assert sorted(means, key=lambda name: -means[name]) == list(order), "the paper's"
    assert sorted(means, key=lambda name: -studies[name]["train_loss"]) == list(order)


def test_every_run_of_the_precision_policies_is_quoted() -> None:
    table = [cells for cells in table_rows("docs/reference/precision.md") if len(cells) == 6]
    quoted = {(cells[0], cells[1].strip("`"), *cells[2:5]) for cells in table}
    for row in rows("precision-20.jsonl"):
        rate = f"{row['learning_rate']:g}"
        assert (row["optimizer"], row["precision"], rate, *losses(row)) in quoted
        assert row["steps"] == 1200


def test_figures_in_sentences_are_those_of_the_rows() -> None:
    found = {
        (row["optimizer"], row["precision"], row["learning_rate"]): losses(row) for row in rows("precision-20.jsonl")
    }
    said = (ROOT / "docs/reference/precision.md").read_text(encoding="utf-8").replace("\n", " ")
    rounded, plain = (found["tridiag-sonew", precision, 7e-3][0] for precision in ("bf16-sr", "f32"))
    assert f"tridiagonal SONew ends at {rounded}, in float32 at {plain}." in said
    assert (
        f"Adam loses more: {found['adam', 'bf16', 1e-3][0]} where float32 has {found['adam', 'f32', 1e-3][0]}." in said
    )
    studies = {row["optimizer"]: losses(row) for row in rows("tuned-20.jsonl")}
    said = (ROOT / "docs/results.md").read_text(encoding="utf-8").replace("\n", " ")
    assert "Muon ends lowest ({}; {} on the test set)".format(*studies["muon"]) in said
    assert "K-FAC best on the test set ({}; {})".format(*studies["kfac"]) in said
    assert min(studies, key=lambda name: float(studies[name][0])) == "muon"
    assert min(studies, key=lambda name: float(studies[name][1])) == "kfac"


def test_every_policy_was_run_with_every_optimizer() -> None:
    run = {(row["optimizer"], row["precision"]) for row in rows("precision-20.jsonl")}
    assert run == set(itertools.product(("adam", "tridiag-sonew", "band-sonew"), PRECISIONS))
    done = [(row["optimizer"], row["precision"], row["learning_rate"]) for row in rows("precision-20.jsonl")]
    assert sorted(done) == sorted(precision_runs.RUNS)


@pytest.mark.parametrize("name", ["tridiag-sonew", "band-sonew"])
def test_low_precision_ends_within_a_percent_of_float32(name: str) -> None:
    best: dict[str, float] = {}
    for row in rows("precision-20.jsonl"):
        if row["optimizer"] == name:
            best[row["precision"]] = min(row["train_loss"], best.get(row["precision"], float("inf")))
    for policy in ("bf16", "bf16-mixed", "f16-mixed", "bf16-sr"):
        assert best[policy] <= 1.01 * best["f32"]
    shipped = optimizer_settings(name, precision="bf16").learning_rate
    assert best["bf16"] in [row["train_loss"] for row in rows("precision-20.jsonl") if row["learning_rate"] == shipped]


def test_the_table_of_speed_has_all_ratios_of_a_processor_with_units() -> None:
    newest = json.loads((RESULTS / "speed-zen5.json").read_text(encoding="utf-8"))
    assert newest["units"] == ["vdpbf16ps"]
    assert tuple(newest["ratios"]) == tuple(goal.key for goal in GOALS)
    table = {cells[0]: cells[1] for cells in table_rows("docs/results.md") if len(cells) == 7}
    assert table.keys() >= {goal.what for goal in GOALS}
    assert sum(cell.endswith(", missed") for cell in table.values()) == sum(
        goal.is_met(newest["ratios"][goal.key]) is False for goal in GOALS
    )


def test_the_steps_of_models_are_those_of_their_file() -> None:
    measured = json.loads((RESULTS / "models.json").read_text(encoding="utf-8"))
    table = {cells[0].strip("`"): cells[1:] for cells in table_rows("docs/results.md") if len(cells) == 6}
    steps = {name: each for name, each in measured["measurements"].items() if "examples" in each}
    assert {name: each["examples"] for name, each in steps.items()} == {**BATCHES, "lstm:model": 100, "unet:model": 100}
    for model, step in steps.items():
        seconds = [f"{1e3 * step[side]:.1f}" for side in ("a_seconds", "b_seconds")]
        compiled = f"{measured['ratios'][f'{model}_compile_seconds']:.1f}"
        assert table[model.partition(":")[0]] == [str(step["examples"]), *seconds, f"{step['ratio']:.2f}", compiled]


def test_the_steps_of_pytorch_are_those_of_their_rows() -> None:
    table = {cells[0].strip("`"): cells[1:] for cells in table_rows("docs/results.md") if len(cells) == 4}
    compared = [row for row in rows("versus-torch.jsonl") if row["kind"] != "time"]
    assert {row["kind"] for row in compared} == {"torch-eager", "torch-compile"}
    for row in compared:
        seconds = (row["compiled_step_seconds"], row["step_p50_seconds"])
        assert table[row["kind"]] == [*(f"{1e3 * each:.1f}" for each in seconds), f"{row['ratio']:.3f}"]
