"""Damaged checkpoints, checkpoints of other models, and runs that cannot be resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sonew_compiled.runtime import load_checkpoint, open_bundle
from sonew_compiled.runtime.tensorfile import read_metadata, read_tensors, write_tensors

Refused = Callable[..., str]
Line = tuple[object, ...]
Change = Callable[[Callable[[dict[str, Any]], object]], None]


def test_damaged_checkpoints(refused: Refused, trained: Path) -> None:
    content = trained.read_bytes()
    lines = (
        ("run", "small.bundle", "--data", "data.npz", "--resume", trained),
        ("eval", "small.bundle", "--checkpoint", trained),
        ("reconstruct", "small.bundle", "--checkpoint", trained),
    )
    for damage in (
        content[: len(content) // 2],
        content[:-300] + bytes([content[-300] ^ 1]) + content[-299:],
        content[:5],
        b"",
        b"\xff" * 100,
        b"{}",
    ):
        trained.write_bytes(damage)
        for line in lines:
            message = refused(1, *line)
            assert str(trained) in message
            assert "truncated" in message or "corrupt" in message
    trained.unlink()
    for line in lines:
        message = refused(2, *line)
        assert f"no checkpoint at {trained}" in message


def test_a_safetensors_file_that_is_neither_a_checkpoint_nor_the_model_s_weights(refused: Refused) -> None:
    path = Path("other.safetensors")
    write_tensors(path, {"x": np.zeros(3, np.float32)})
    message = refused(1, "eval", "small.bundle", "--checkpoint", path)
    assert "other.safetensors does not hold this model's parameters: it lacks 'params/down'" in message


def test_a_newer_checkpoint(refused: Refused, trained: Path) -> None:
    metadata = {key: value for key, value in read_metadata(trained).items() if key != "sha256"}
    write_tensors(trained, read_tensors(trained), {**metadata, "format_version": "99"})
    message = refused(1, "eval", "small.bundle", "--checkpoint", trained)
    assert "checkpoint format version 99; this runtime reads up to 1" in message
    assert "upgrade sonew-compiled" in message


def test_a_checkpoint_of_another_model_or_optimizer(refused: Refused, trained: Path, change_manifest: Change) -> None:
    change_manifest(lambda manifest: manifest.update(model="other"))
    for line in (
        ("run", "small.bundle", "--data", "data.npz", "--resume", "sonew-run"),
        ("eval", "small.bundle", "--checkpoint", "sonew-run"),
    ):
        message = refused(1, *line)
        assert f"{trained} is a checkpoint of model 'small_model:model', the bundle has 'other'" in message
        assert "use the bundle that it was trained with" in message
    change_manifest(lambda manifest: manifest.update(model="small_model:model", optimizer={"name": "adam"}))
    message = refused(1, "eval", "small.bundle", "--checkpoint", trained)
    assert "is a checkpoint of optimizer 'tridiag-sonew', the bundle has 'adam'" in message


def test_going_on_with_other_data(refused: Refused, trained: Path) -> None:
    np.savez("other.npz", image=np.zeros((99, 6, 6), np.uint8))
    message = refused(2, "run", "small.bundle", "--resume", "sonew-run", "--data", "other.npz")
    assert str(trained) in message
    assert "give the --data it had, data.npz" in message
    Path("data.npz").unlink()
    message = refused(2, "run", "small.bundle", "--resume", "sonew-run")
    assert "the checkpoint's data are not here, so give --data: there is no file `data.npz`" in message


def test_going_on_where_the_run_is_no_more(refused: Refused, trained: Path, train_line: Line) -> None:
    message = refused(2, "run", "--resume", "sonew-run")
    assert f"no bundle beside {trained}" in message
    assert message.endswith("sonew run BUNDLE --resume sonew-run")
    message = refused(2, "run", "small.bundle", "--resume", "sonew-run", "--epochs", 2)
    assert "is at step 36, beyond the 18 steps of 2 epochs: choose more --epochs" in message
    message = refused(2, *train_line)
    assert "sonew-run holds another run" in message
    assert "--resume sonew-run" in message
    assert "--overwrite" in message


def test_a_loss_that_is_no_number_keeps_the_last_checkpoint(refused: Refused, trained: Path, train_line: Line) -> None:
    # The compiled optimizer bounds its steps, so only a rate at the end of float32's range makes it diverge.
    message = refused(1, *train_line, "-o", "wild", "--learning-rate", "1e38", "--schedule", "constant")
    assert "of 36: lower --learning-rate, now 1e+38; there is no checkpoint yet" in message
    message = refused(
        *(1, "run", "small.bundle", "--resume", trained, "--epochs", 8, "--warmup-epochs", 0),
        *("--learning-rate", "1e38", "--schedule", "constant"),
    )
    assert f"the last good checkpoint is {trained}" in message
    assert load_checkpoint("sonew-run", open_bundle("small.bundle").manifest).step == 36
