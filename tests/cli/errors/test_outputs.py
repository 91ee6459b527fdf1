"""Outputs that cannot be written, must not be replaced or exceed the disk, and plots without data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Refused = Callable[..., str]
Line = tuple[object, ...]


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        ("folder", 2, "folder is a directory that is not a bundle, or holds more than one; give a new directory, or"),
        ("extension", 2, "extension is a directory that is not a bundle, or holds more than one"),
        ("file", 2, "file is a file; give a new directory, or an older bundle to replace"),
        ("file/deeper/bundle", 1, "file cannot be written to; give another output"),
    ],
)
def test_bundles_go_where_they_destroy_nothing(refused: Refused, small: Any, output: str, code: int, said: str) -> None:
    shutil.copy(small.path / "small_model.py", ".")
    Path("folder").mkdir()
    Path("folder/thesis.tex").write_text("years of work")
    Path("file").write_text("more of it")
    Path("extension").mkdir()
    Path("extension/manifest.json").write_text('{"name": "of a browser", "files": {}}')
    Path("extension/script.js").write_text("weeks of work")
    message = refused(code, "compile", "--model", "small_model:model", "-o", output)
    assert said in message
    assert Path("folder/thesis.tex").read_text() == "years of work"
    assert Path("file").read_text() == "more of it"
    assert Path("extension/script.js").exists()


def test_output_that_cannot_be_written(refused: Refused, trained: Path, train_line: Line) -> None:
    Path("file").write_text("")
    message = refused(1, *train_line, "-o", "file/run")
    assert "file/run" in message
    assert "choose another --output" in message
    message = refused(1, "reconstruct", "small.bundle", "--checkpoint", trained, "-o", "file/x.png")
    assert "file/x.png cannot be written" in message
    message = refused(1, "plot", "sonew-run", "-o", "file/x.png")
    assert "file/x.png cannot be written" in message
    message = refused(2, "plot", "sonew-run", "-o", "x.bmp")
    assert "cannot draw x.bmp; give a name that ends in .png, .svg or .pdf" in message
    message = refused(1, "data", "fetch", "--data-dir", "file/data")
    assert "cannot write to file/data" in message


def test_plots_of_what_was_not_trained(refused: Refused) -> None:
    message = refused(1, "plot", "nowhere")
    assert "nowhere holds no metrics.jsonl with a finished epoch; give the --output of a `sonew run`" in message
    Path("odd").mkdir()
    Path("odd/metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    assert "odd/metrics.jsonl has lines without an epoch and a loss" in refused(1, "plot", "odd")
    Path("odd/metrics.jsonl").write_text("nonsense\n{}\n")
    assert "odd/metrics.jsonl line 1 is not a line of metrics" in refused(1, "plot", "odd")


def test_a_full_disk_keeps_the_last_checkpoint(refused: Refused, trained: Path, full_disk: Callable[..., Any]) -> None:
    before = trained.read_bytes()
    with full_disk(after=2000):
        message = refused(1, "run", "small.bundle", "--resume", trained, "--epochs", 8)
    assert "sonew-run/step-00000045.safetensors cannot be written (File too large)" in message
    assert "free space, or choose another --output" in message
    assert f"the last good checkpoint is {trained}" in message
    assert trained.read_bytes() == before
    assert not list(Path("sonew-run").glob(".*"))


def test_a_full_disk_while_compiling(refused: Refused, small: Any, full_disk: Callable[..., Any]) -> None:
    shutil.copy(small.path / "small_model.py", ".")
    shutil.copytree("small.bundle", "out")
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    with full_disk(after=100):
        # The dump fills the disk first, so nothing need be compiled.
        message = refused(1, "compile", "--model", "small_model:model", "-o", "out", "--dump-ir", "ir")
    assert "File too large" in message
    assert "free space" in message
    assert before == {path.name: path.read_bytes() for path in Path("out").iterdir()}
