"""Options out of range, or that do not go together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonew_compiled.lowering.targets import target_names
from sonew_compiled.presets import OPTIMIZERS

Refused = Callable[..., str]


@pytest.mark.parametrize("command", ["run", "compile"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--optimizer lion", ("'--optimizer'", "'lion'", *OPTIMIZERS)),
        ("--schedule quadratic", ("'--schedule'", "'quadratic'", "paper", "constant", "cosine")),
        ("--learning-rate -1", ("'--learning-rate'", "'-1'", "zero or a positive number, such as 1e-2")),
        ("--learning-rate nan", ("'--learning-rate'", "'nan'", "zero or a positive number")),
        ("--learning-rate inf", ("'--learning-rate'", "'inf'", "zero or a positive number")),
        ("--learning-rate fast", ("'--learning-rate'", "'fast'", "zero or a positive number")),
        ("--learning-rate 1e39", ("'--learning-rate'", "'1e39'", "zero or a positive number")),
        ("--batch-size 0", ("'--batch-size'", "0 is not in the range x>=1")),
        ("--optimizer adam --band 2", ("--band 2", "adam", "--optimizer band-sonew")),
        ("--band 3", ("--band 3", "tridiag-sonew", "--optimizer band-sonew")),
        ("--optimizer band-sonew --band 99", ("--band is 99", "0 (diagonal) to 32")),
        ("--optimizer shampoo --band 2", ("--band 2 does not go with shampoo", "--precond-interval, --block-size;")),
        ("--optimizer sgd --b1 0.9", ("--b1 0.9 does not go with sgd", "takes no settings")),
        (
            "--precond-interval 5",
            (
                "tridiag-sonew",
                "--optimizer soap or shampoo or caspr or kl-shampoo or psgd-kron or full-adagrad or kfac",
            ),
        ),
        ("--optimizer shampoo --precond-interval 0", ("--precond-interval is 0", "such as 20")),
        ("--optimizer shampoo --block-size -1", ("--block-size is -1", "such as 1024")),
        ("--optimizer rfdson --rank 99", ("--rank is 99", "from 1 to 64")),
        ("--optimizer adamw --weight-decay -1", ("--weight-decay is -1.0", "zero or a positive number")),
        ("--optimizer schedule-free-adamw --b1 0", ("--b1 is 0", "such as 0.9")),
        (
            "--optimizer sgd --preset long",
            ("--preset long does not go with sgd", "--optimizer diag-sonew, tridiag-sonew"),
        ),
        ("--b1 1.5", ("--b1 is 1.5", "[0, 1)")),
        ("--b2 nan", ("--b2 is nan", "[0, 1)")),
        ("--b2 0.99999999", ("--b2 is 0.99999999", "[0, 1)")),
        ("--optimizer kbfgs --eps 2", ("--eps is 2.0", "below 1.0", "such as 0.3")),
        ("--eps 1e-60", ("--eps is 1e-60", "a positive number of float32, such as 1e-7")),
        ("--eps 0", ("--eps is 0.0", "a positive number of float32, such as 1e-7")),
        ("--target bogus", ("'bogus'", *target_names())),
        ("--model nonsense", ("'nonsense'", "autoencoder", "package.module:attribute")),
        ("--params missing.safetensors", ("missing.safetensors", "check the name")),
    ],
)
def test_options_that_say_what_to_compile(
    refused: Refused, small: Any, command: str, options: str, said: tuple[str, ...]
) -> None:
    shutil.copy(small.path / "small_model.py", ".")
    data = ("--data", "data.npz") if command == "run" else ()
    model = () if "--model" in options else ("--model", "small_model:model")
    message = refused(2, command, *data, *model, *options.split(), "-o", "out")
    for part in said:
        assert part in message
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--epochs 0", ("'--epochs'", "x>=1")),
        ("--epochs many", ("'--epochs'", "'many'")),
        ("--seed -1", ("'--seed'", "0<=x<=2147483647")),
        ("--seed 2147483648", ("'--seed'", "0<=x<=2147483647")),
        ("--warmup-epochs -1", ("'--warmup-epochs'", "x>=0")),
        ("--warmup-steps -1", ("'--warmup-steps'", "x>=0")),
        ("--final-rate -1", ("'--final-rate'", "zero or a positive number")),
        ("--keep 0", ("'--keep'", "x>=1")),
        ("--max-steps 0", ("'--max-steps'", "x>=1")),
        ("--device tpu9", ("'tpu9'", "local-task, local-sync")),
        ("--device local-task://7", ("'local-task://7'", "local-task, local-sync")),
        ("--data nothing", ("`nothing`", "mnist-10k", "mnist", ".npz")),
        ("--data nothing.npz", ("no file `nothing.npz`", "mnist-10k")),
        ("--data-dir here", ("--data-dir here has the files of mnist", "the data are data.npz")),
        ("--data .", ("is a folder", "--data mnist --data-dir .")),
        ("--optimizer adam", ("--optimizer is compiled into the bundle small.bundle", "sonew compile")),
        ("--batch-size 5", ("--batch-size is compiled into the bundle small.bundle", "sonew compile")),
        ("--target cpu", ("--target is compiled into the bundle small.bundle", "sonew compile")),
        ("--shard-state", ("--shard-state: small.bundle was not compiled for workers", "--micro-batch")),
        ("--resume missing", ("no checkpoint at missing", "step-*.safetensors")),
        ("--resume small.bundle", ("no checkpoint (step-*.safetensors) in small.bundle", "--output of an earlier run")),
    ],
)
def test_options_that_say_how_to_train(refused: Refused, options: str, said: tuple[str, ...]) -> None:
    message = refused(2, "run", "small.bundle", "--data", "data.npz", *options.split())
    for part in said:
        assert part in message
    assert not Path("sonew-run").exists()


def test_a_pass_that_there_is_not(refused: Refused, small: Any) -> None:
    shutil.copy(small.path / "small_model.py", ".")
    message = refused(2, "compile", "--model", "small_model:model", "-o", "out", "--print-ir-after", "inline")
    assert "'inline'" in message
    assert "merge-exports" in message
    assert "all" in message


def test_what_nobody_foresaw_is_one_line(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sonew_compiled.runtime import Program

    def fails(*_: object) -> None:
        raise IndexError("first line\nsecond line")

    monkeypatch.setattr(Program, "load", fails)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    message = refused(1, "run", "small.bundle", "--data", "data.npz", "--epochs", 1)
    (log,) = tmp_path.glob("sonew-fault-*.log")
    assert message == f"sonew: unexpected IndexError: first line; please report it with {log}"
    assert "in fails" in log.read_text()
