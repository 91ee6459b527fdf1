"""The output of a run: lines, the progress bar, metrics and pictures."""

import dataclasses
import io
import json
import math
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from sonew_compiled.errors import SonewError, UsageError, measured
from sonew_compiled.runtime import EpochMetrics, read_metrics, reconstruction_grid
from sonew_compiled.runtime.metrics import MetricsFile
from sonew_compiled.runtime.reporter import LineReporter, epoch_line, make_reporter


def metrics(epoch: int) -> EpochMetrics:
    return EpochMetrics(
        step=10 * epoch, epoch=epoch, loss=1 / 3, learning_rate=0.01, seconds=1.5 * epoch, examples_per_second=1234.5
    )


def test_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    reporter = make_reporter(stream)
    assert isinstance(reporter, LineReporter)
    with reporter:
        reporter.begin(step=0, steps=20, epochs=2, steps_per_epoch=10, batch_size=8)
        for step in range(1, 11):
            reporter.step(step=step, loss=0.5)
        reporter.epoch(metrics(1))
        reporter.say("saved [somewhere]")
    assert stream.getvalue() == "epoch 1/2  step 10  loss 0.3333  lr 0.01  1,234 examples/s\nsaved [somewhere]\n"


def test_a_line_has_the_test_split_and_the_unit_where_there_are_any() -> None:
    tested = dataclasses.replace(metrics(2), test_loss=0.25, test_metrics={"accuracy": 0.875})
    line = epoch_line(tested, epochs=3, unit="nats")
    assert line == ("epoch 2/3  step 20  loss 0.3333 nats  test 0.2500  accuracy 0.8750  lr 0.01  1,234 examples/s")


def test_tiny_and_huge_losses_have_digits() -> None:
    shown = (0.0, 0.00123456, 1.23456e-6, -1.23456e-6, 9999999.0, 1.23456e30, math.inf, math.nan)
    assert [measured(value) for value in shown] == [
        *("0.0000", "0.0012", "1.235e-06", "-1.235e-06", "9999999.0000", "1.235e+30", "inf", "nan")
    ]
    diverged = dataclasses.replace(metrics(2), loss=1.23456e30, test_loss=1e-6, test_metrics={})
    assert "  loss 1.235e+30  test 1e-06  lr " in epoch_line(diverged, epochs=3, unit="")


def test_a_progress_bar_on_a_terminal() -> None:
    script = """
import sys, time
from sonew_compiled.runtime import EpochMetrics
from sonew_compiled.runtime.reporter import make_reporter
reporter = make_reporter(unit="nats")
with reporter:
    reporter.begin(step=5, steps=20, epochs=2, steps_per_epoch=10, batch_size=8)
    for step in range(6, 21):
        reporter.step(step=step, loss=0.125)
        time.sleep(0.01)
        if step == 10:
            reporter.epoch(EpochMetrics(
                step=10, epoch=1, loss=0.5, learning_rate=0.1, seconds=1, examples_per_second=10, test_loss=0.75
            ))
    reporter.say("saved [somewhere]")
print("the result")
"""
    master, slave = pty.openpty()
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                shown.extend(os.read(master, 4096))
            except OSError:  # the other end has closed
                return

    reader = threading.Thread(target=read)
    reader.start()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-c", script], stderr=slave, stdout=subprocess.PIPE, env=environment, check=True
    )
    os.close(slave)
    reader.join()
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert done.stdout == b"the result\n"
    assert "epoch 2/2" in text
    assert "20/20" in text
    assert "loss 0.125" in text
    assert re.search(r"[\d,]+ examples/s", text)
    assert re.search(r"ETA +0:00:0\d", text)
    assert "epoch 1/2  step 10  loss 0.5000 nats  test 0.7500  lr 0.1  10 examples/s" in text
    assert "saved [somewhere]" in text


def test_metrics_are_json_lines(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "run", step=0, source=tmp_path / "run")
    file.append(metrics(1))
    file.append(metrics(2))
    rows = [json.loads(line) for line in file.path.read_text().splitlines()]
    assert rows == read_metrics(tmp_path / "run")
    assert list(rows[0]) == ["step", "epoch", "loss", "learning_rate", "seconds", "examples_per_second"]
    assert rows[0]["loss"] == 1 / 3
    file.append(dataclasses.replace(metrics(3), test_loss=math.nan, test_metrics={"accuracy": 0.5}))
    line = read_metrics(tmp_path / "run")[2]
    assert list(line)[6:] == ["test_loss", "test_accuracy"]
    assert (line["test_loss"], line["test_accuracy"]) == (None, 0.5)


def test_metrics_beyond_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path, step=0, source=tmp_path)
    for epoch in (1, 2, 3):
        file.append(metrics(epoch))
    MetricsFile(tmp_path, step=25, source=tmp_path).append(metrics(3))
    assert [row["step"] for row in read_metrics(tmp_path)] == [10, 20, 30]
    MetricsFile(tmp_path, step=9, source=tmp_path)
    assert read_metrics(tmp_path) == []


def test_metrics_that_cannot_be_written_are_refused(tmp_path: Path, refusal: Callable[..., str]) -> None:
    file = MetricsFile(tmp_path, step=0, source=tmp_path)
    file.path.unlink()
    file.path.mkdir()
    assert "cannot be written" in refusal(SonewError, lambda: file.append(metrics(1)))
    assert "cannot be read" in refusal(SonewError, lambda: read_metrics(tmp_path))
    assert read_metrics(tmp_path / "no") == []


@pytest.mark.parametrize("shape", [(784,), (28, 28), (28, 28, 1), (1, 28, 28)])
def test_a_grid_has_inputs_over_reconstructions(tmp_path: Path, shape: tuple[int, ...]) -> None:
    inputs = np.linspace(0, 1, 12, dtype=np.float32).reshape(12, *[1] * len(shape)) * np.ones(shape, np.float32)
    path = reconstruction_grid(inputs, 1 - inputs, tmp_path / "new" / "grid.png")
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        pixels = np.asarray(image)
    # Ten to a row, so two rows of pairs; each image is 28 pixels enlarged three times, 3 pixels apart.
    assert pixels.shape == (2 * (2 * 84 + 9) + 3, 10 * 87 + 3)
    for index, value in enumerate(np.rint(np.linspace(0, 1, 12) * 255)):
        row, column = divmod(index, 10)
        top = row * 177 + 3
        left = column * 87 + 3
        assert (pixels[top : top + 84, left : left + 84] == value).all()
        assert (pixels[top + 87 : top + 171, left : left + 84] == 255 - value).all()
    assert (pixels[:3] == 255).all()


def test_a_grid_of_few_images_of_any_size_and_dtype(tmp_path: Path) -> None:
    images = np.array([[[-1, 0.5], [np.nan, 7]]]).astype(ml_dtypes.bfloat16)
    with Image.open(reconstruction_grid(images, images, tmp_path / "grid.png")) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (2 * 84 + 3 * 4, 84 + 3 * 2)
    np.testing.assert_array_equal(pixels[3:87:83, 3:87:83], [[0, 128], [0, 255]])


def test_pictures_of_no_images_are_refused(tmp_path: Path, refusal: Callable[..., str]) -> None:
    def said(inputs: np.ndarray, outputs: np.ndarray) -> str:
        return refusal(UsageError, lambda: reconstruction_grid(inputs, outputs, tmp_path / "grid.png"))

    square = np.zeros((3, 9))
    assert "(3, 8)" in said(np.zeros((3, 8)), square)
    assert "outputs of shape (3, 2, 2, 2)" in said(square, np.zeros((3, 2, 2, 2)))
    assert "2 outputs" in said(square, np.zeros((2, 9)))
    assert "0 outputs" in said(square[:0], square[:0])
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(
        SonewError, lambda: reconstruction_grid(square, square, tmp_path / "file" / "grid.png")
    )
