"""Commands that compile, and what must hold of their folders once they have been begun again and ended well."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sonew_compiled.runtime import open_bundle

_MODEL = ("--model", "small_model:model", "--batch-size", 20)
_DATA = ("--data", "data.npz")
_TRIALS = 4

COMMANDS: dict[str, tuple[object, ...]] = {
    "compile": ("compile", *_MODEL, "--optimizer", "adam", "--no-check", "-o", "small.bundle"),
    "tune": ("tune", *_MODEL, *_DATA, "--optimizer", "adam", "--epochs", 2, "--trials", _TRIALS, "-o", "study"),
    "bench": (
        *("bench", *_MODEL, *_DATA, "--optimizer", "adam", "--optimizer", "sgd", "--precision", "f32"),
        *("--steps", 2, "--pairs", 1, "-o", "bench", "--resume"),
    ),
}
"""Each may be given again, whatever became of it before."""


def _is_bundle(path: Path) -> None:
    open_bundle(path).verify()
    assert {each.name for each in path.iterdir()} == {"manifest.json", "module.stablehlo", "cpu.vmfb"}, path


def _compiled() -> None:
    _is_bundle(Path("small.bundle"))


def _tuned() -> None:
    _is_bundle(Path("study/trial.bundle"))
    assert {path.name for path in Path("study").iterdir()} == {"study.journal", "best.json", "trial.bundle"}
    found = json.loads(Path("study/best.json").read_text())
    assert found["trials"] == len(found["each"]) == _TRIALS
    # The first three are told what to be, also where one of them was stopped, or had not been told yet.
    rates = sorted(trial["learning_rate"] for trial in found["each"][:3])
    assert [rate / rates[0] for rate in rates] == pytest.approx([1, 3, 9], rel=1e-4)


def _benched() -> None:
    rows = [json.loads(line) for line in Path("bench/rows.jsonl").read_text().splitlines()]
    done = [row["settings"]["optimizer"]["name"] for row in rows if row["error"] is None]
    assert sorted(done) == ["adam", "sgd"], rows
    names = {path.name for path in Path("bench").iterdir()}
    assert {"rows.jsonl", "bundles", "table.md", "report.html"} <= names
    assert not [name for name in names if name.startswith(".")], names
    for bundle in filter(Path.is_dir, Path("bench/bundles").iterdir()):
        _is_bundle(bundle)


IS_DONE: dict[str, Callable[[], None]] = {"compile": _compiled, "tune": _tuned, "bench": _benched}
