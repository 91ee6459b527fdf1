"""The table of 100 epochs that is made from its rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paper_table
import pytest
import result_tables
from click.testing import CliRunner


def row(name: str, precision: str, losses: Sequence[float], *, seed: int = 0, **optimizer: float) -> dict[str, Any]:
    """A row whose run ended with the last of the losses, and on the test set one nat above."""
    settings = {"optimizer": {"name": name, "learning_rate": 1e-3, **optimizer}, "precision": precision}
    return {
        "settings": {**settings, "epochs": 100, "data": "mnist", "seed": seed},
        "error": None,
        "curve": [{"epoch": epoch, "loss": loss} for epoch, loss in enumerate(losses, 1)],
        "train_loss": losses[-1],
        "test_loss": losses[-1] + 1,
    }


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row("rfdson", "f32", [99, 70], rank=4.0),
        row("sonew", "f32", [99, 60, 52], seed=1),
        row("sonew", "f32", [99, 61, 60, 51]),
        row("adam", "f32", [99, 80, 60]),
    ]
    (tmp_path / "paper-100.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "epoch-seconds.json").write_text('{"sonew-f32": 2.5, "adam-f32": 2}', encoding="utf-8")
    trials = {
        "tuned-20": [{"optimizer": "adam", "trials": 12, "epochs": 20}],
        "adam-100": [{"optimizer": "adam", "epochs": 100}] * 2,
        "long-search": [{"optimizer": "sonew", "epochs": 100, "stopped": 12}, {"optimizer": "sonew", "epochs": 1000}],
    }
    for file, of_it in trials.items():
        (tmp_path / f"{file}.jsonl").write_text("\n".join(map(json.dumps, of_it)), encoding="utf-8")
    monkeypatch.setattr(result_tables, "RESULTS", tmp_path)


def test_seeds_are_averaged_and_the_goal_is_adams_loss(results: None) -> None:
    _, _, *lines = paper_table.markdown().splitlines()
    assert lines == [
        "| rfdson(4) | `f32` | 1 | 0 epochs | 0.001 | 70.00 | 71.00 |  |  |",
        "| adam | `f32` | 1 | 440 epochs | 0.001 | 60.00 | 61.00 | 200 | 6 |",
        "| sonew | `f32` | 2 | 1,012 epochs | 0.001 | 51.50 (51.00 to 52.00) | 52.50 (52.00 to 53.00) | 250 | 8 |",
    ]


def test_the_picture_has_a_line_for_each_system_that_was_timed(results: None) -> None:
    chart = paper_table.chart()
    assert {each.label: each.points for each in chart.series} == {
        "adam": ((4.0, 80), (6.0, 60)),
        "sonew": ((5.0, 61), (7.5, 60), (10.0, 51)),
    }


def test_the_picture_is_that_of_the_rows(tmp_path: Path) -> None:
    made = CliRunner().invoke(paper_table.main, [str(tmp_path / "made.svg")])
    assert made.exit_code == 0, made.output
    assert (tmp_path / "made.svg").read_bytes() == paper_table.PICTURE.read_bytes()
