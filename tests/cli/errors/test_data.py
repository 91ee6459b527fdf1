"""Data that are missing, damaged or for another model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"image": np.zeros((99, 5, 5), np.uint8)}, ("(5, 5)", "(36,)", "use other data or another model")),
        ({"image": np.zeros((99, 6, 6), np.int64)}, ("int64", "float32", "accepted are")),
        ({"image": np.zeros((99, 6, 6), np.complex64)}, ("complex64", "an integer or floating-point dtype")),
        ({"image": np.full((99, 6, 6), "x")}, ("dtype <U1", "an integer or floating-point dtype")),
        ({"image": np.full((99, 6, 6), np.nan, np.float32)}, ("nan", "every value must be finite")),
        ({"image": np.zeros((12, 6, 6), np.uint8)}, ("training examples, less than one batch of 20", "--batch-size")),
        ({"image": np.zeros((0, 6, 6), np.uint8)}, ("0 examples", "at least 2")),
        ({"image": np.zeros((99, 6, 6), np.uint8), "label": np.zeros(3, np.int32)}, ("different lengths", "label 3")),
        (
            {"train_image": np.zeros((99, 6, 6), np.uint8), "test_label": np.zeros(9, np.uint8)},
            ("only one of the training and test parts",),
        ),
        ({"a": np.zeros((99, 6, 6), np.uint8), "b": np.zeros(99, np.uint8)}, ("no field image", "a, b")),
        ({}, ("no arrays", "train_<field>")),
    ],
)
def test_data_that_do_not_fit(refused: Refused, arrays: dict[str, Any], said: tuple[str, ...]) -> None:
    np.savez("bad.npz", **arrays)
    message = refused(2, "run", "small.bundle", "--data", "bad.npz")
    for part in said:
        assert part in message
    assert not Path("sonew-run").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.npz", b"PK\x03\x04 truncated"),
        ("bad.npz", b""),
        ("bad.npy", b"\x93NUMPY\x01\x00"),
        ("bad-idx3-ubyte.gz", b"\x1f\x8b\x08 corrupt"),
        ("bad-idx3-ubyte", b"\0\0\x08\x03\0\0\0\x05"),
        ("bad-idx3-ubyte", b"no IDX"),
    ],
)
def test_damaged_data(refused: Refused, name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    message = refused(1, "run", "small.bundle", "--data", name)
    assert name in message
    assert "save" in message


def test_mnist_that_is_not_there_or_damaged(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONEW_DATA", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for line in ("run small.bundle", "data verify"):
        message = refused(1, *line.split(), *(["--data", "mnist"]), "--data-dir", "b")
        assert "sonew data fetch --data-dir b" in message
        assert "train- and t10k-, images-idx3-ubyte and labels-idx1-ubyte" in message
    Path("b").mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        Path(f"b/{name}-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x00")
    message = refused(1, "run", "small.bundle", "--data", "mnist", "--data-dir", "b")
    assert "b/train-images-idx3-ubyte is not MNIST's train-images-idx3-ubyte: SHA-256" in message
    assert "sonew data fetch --data-dir b" in message
    Path("file").write_text("")
    message = refused(2, "data", "verify", "--data-dir", "file")
    assert "Directory 'file' is a file" in message
