"""What a run refuses to mix, and what it keeps when something goes wrong."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_compiled.contract import STABLEHLO_FILE, Role
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime import (
    Bundle,
    Dataset,
    Device,
    Interrupted,
    Program,
    TrainingState,
    TrainResult,
    TrainSettings,
    bind,
    open_bundle,
    read_metrics,
    resumed_settings,
    save_parameters,
    train,
)
from sonew_compiled.runtime.data.mapped import write_folder
from sonew_compiled.runtime.manifest import FileSpec, TensorSpec
from sonew_compiled.runtime.metrics import MetricsFile
from sonew_compiled.runtime.resuming import header_of
from sonew_compiled.runtime.tensorfile import read_tensors

SETTINGS = TrainSettings(epochs=3, learning_rate=0.05, schedule="paper", seed=7)  # of 10 steps each
Run = Callable[..., TrainResult]

train_module = importlib.import_module("sonew_compiled.runtime.train")  # the package's `train` is the function


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture
def run(bundle: Bundle, tiny_data: Dataset, cpu: Device, tmp_path: Path) -> Run:
    def train_tiny(settings: TrainSettings = SETTINGS, *, of: Bundle = bundle, **options: Any) -> TrainResult:
        return train(of, tiny_data, settings, cpu, **{"output": tmp_path / "run", **options})

    return train_tiny


def of_program(bundle: Bundle, module: bytes) -> Bundle:
    """The same code, as if it had been compiled from this module."""
    files = {**bundle.manifest.files, STABLEHLO_FILE: FileSpec.of(module)}
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, files=files))


def test_a_run_is_not_resumed_with_another_program(
    run: Run, bundle: Bundle, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """Models that differ in an activation have states of the same names and shapes."""
    first, other = (of_program(bundle, module) for module in (b"tanh", b"relu"))
    run(dataclasses.replace(SETTINGS, max_steps=5), of=first)
    message = refusal(UsageError, lambda: run(of=other, resume=tmp_path / "run"))
    assert "step-00000005.safetensors was trained by another program than that of" in message
    assert "begin with its weights, --params " in message
    assert run(of=first, resume=tmp_path / "run").steps == 30
    assert run(of=bundle, resume=tmp_path / "run").steps == 30, "a bundle may come without its module"


def test_settings_without_end_fit_into_a_checkpoint(bundle: Bundle) -> None:
    """A header is read within limits, so a run that wrote more could not be resumed."""
    patterns = [f"layer_{index}/*" for index in range(1000)]
    manifest = dataclasses.replace(bundle.manifest, step={"freeze": patterns})
    other = dataclasses.replace(manifest, step={"freeze": [*patterns[:-1], "head/*"]})
    words = [
        header_of(dataclasses.replace(bundle, manifest=each), data="d", fingerprint="f")["compiled"]
        for each in (manifest, other)
    ]
    assert max(map(len, words)) < 10_000
    assert words[0] != words[1]


def test_numbers_of_another_type_are_those_of_the_option(run: Run, tmp_path: Path) -> None:
    """Such as NumPy's, which JSON does not have, and whole numbers that are written as floats."""
    given: dict[str, Any] = {"epochs": 1.0, "learning_rate": np.float32(0.05), "seed": np.int64(7), "keep": 2.0}
    settings = TrainSettings(schedule="paper", **given)
    assert [type(getattr(settings, name)) for name in given] == [int, float, int, int]
    run(settings)
    assert resumed_settings(tmp_path / "run").keep == 2
    assert run(resumed_settings(tmp_path / "run"), resume=tmp_path / "run").steps == 10


def test_a_checkpoint_remembers_which_ones_to_keep(run: Run, tmp_path: Path) -> None:
    """The command that resumes need not say it again."""
    run(dataclasses.replace(SETTINGS, keep=10, keep_best=True, max_steps=20))
    settings = resumed_settings(tmp_path / "run")
    assert (settings.keep, settings.keep_best) == (10, True)
    run(settings, resume=tmp_path / "run")
    assert len(list((tmp_path / "run").glob("step-*"))) == 3
    with pytest.raises(SonewError, match="does not say how it was trained"):
        TrainSettings.from_metadata(SETTINGS.to_metadata() | {"keep_best": "0", "warmup_epochs": "2"}, source=tmp_path)


def test_the_best_test_loss_is_that_of_the_whole_run(run: Run, tmp_path: Path) -> None:
    """A loss of an evaluation before the run was resumed counts."""
    rate = 0.5  # the loss rises in the end
    whole = run(dataclasses.replace(SETTINGS, learning_rate=rate), output=tmp_path / "whole")
    run(dataclasses.replace(SETTINGS, learning_rate=rate, max_steps=20))
    resumed = run(resumed_settings(tmp_path / "run"), resume=tmp_path / "run")
    assert (
        resumed.best_test_loss
        == whole.best_test_loss
        == min(row["test_loss"] for row in read_metrics(tmp_path / "whole"))
    )


def test_fewer_steps_than_were_done_are_refused(run: Run, tmp_path: Path, refusal: Callable[..., str]) -> None:
    run(dataclasses.replace(SETTINGS, max_steps=20))
    fewer = dataclasses.replace(SETTINGS, max_steps=15)
    message = refusal(UsageError, lambda: run(fewer, resume=tmp_path / "run"))
    assert "is at step 20, beyond --max-steps 15: give more, or leave it out" in message


@pytest.mark.parametrize("how", ["failed", "stopped"])
def test_an_epoch_outlives_its_evaluation(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str], how: str
) -> None:
    """Mapped test examples are looked at when they are evaluated, after an epoch of training."""
    whole = run(output=tmp_path / "whole")
    evaluate_all = train_module.evaluate_all
    calls: list[int] = []

    def once(*given: Any, each: Callable[[], None] | None = None, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2 and how == "failed":
            raise UsageError("the data's `image` holds NaN")
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate_all(*given, each=each, **named)

    monkeypatch.setattr(train_module, "evaluate_all", once)
    folder = tmp_path / "run"
    error = refusal(UsageError if how == "failed" else Interrupted, run)
    assert f"{folder / 'step-00000020.safetensors'}" in error
    assert "holds NaN" in error if how == "failed" else error.startswith("stopped after step 20 of 30, saved")
    assert [row["epoch"] for row in read_metrics(folder)] == [1]
    resumed = run(resume=folder)
    assert resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
    kept = ("step", "epoch", "loss", "test_loss")
    rows = [[[row[key] for key in kept] for row in read_metrics(each)] for each in (tmp_path / "whole", folder)]
    assert rows[0] == rows[1]


def test_a_run_has_one_line_of_its_end(tmp_path: Path) -> None:
    lines = [{"step": 10, "epoch": 1, "loss": 1.0}, {"step": 10, "train_loss": 1.0, "test_loss": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    MetricsFile(tmp_path, step=10, source=tmp_path)
    assert [*map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())] == lines[:1]


def test_hundreds_of_metrics_are_read_again(tmp_path: Path) -> None:
    line = {"step": 10, "train_loss": 1.0, **{f"{split}_m{n}": 1.0 for split in ("train", "test") for n in range(800)}}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert read_metrics(tmp_path) == []


def test_a_file_of_another_program_is_not_replaced(run: Run, tmp_path: Path, refusal: Callable[..., str]) -> None:
    (tmp_path / "run").mkdir()
    foreign = tmp_path / "run" / "metrics.jsonl"
    foreign.write_text('{"accuracy": 0.5}\n')
    assert "is not a line of metrics" in refusal(SonewError, run)
    assert foreign.read_text() == '{"accuracy": 0.5}\n'


@pytest.mark.parametrize(
    ("given", "asked", "is_taken"),
    [
        ((28, 28), (784,), True),
        ((784,), (28, 28, 1), True),
        ((1, 4, 7), (28,), True),
        ((4, 7, 28), (28, 28), True),
        ((), (1,), True),
        ((3, 4, 4), (4, 4, 3), False),
        ((4, 4), (2, 8), False),
        ((2, 3, 4), (3, 2, 4), False),
    ],
)
def test_axes_are_joined_and_split_but_not_moved(
    given: tuple[int, ...], asked: tuple[int, ...], is_taken: bool, refusal: Callable[..., str]
) -> None:
    """Images with the channels first were read as such with the channels last."""
    array = np.arange(5 * int(np.prod(given)), dtype=np.float32).reshape(5, *given)
    batch = (TensorSpec(name="image", shape=(5, *asked), dtype="float32", role=Role.BATCH),)
    if is_taken:
        ((found, _),) = bind({"image": array}, batch).evaluation_batches()
        np.testing.assert_array_equal(found["image"], array.reshape(5, *asked))
    else:
        assert "which has the axes in another order: transpose" in refusal(
            UsageError, lambda: bind({"image": array}, batch)
        )


@pytest.mark.parametrize("name", ["label", "labels", "y", "target", "targets"])
def test_bytes_of_a_target_are_not_scaled(name: str, refusal: Callable[..., str]) -> None:
    """A class of a byte became 0.0039 of it."""
    batch = (TensorSpec(name=name, shape=(3,), dtype="float32", role=Role.BATCH),)
    message = refusal(UsageError, lambda: bind({name: np.array([0, 1, 9], np.uint8)}, batch))
    assert "scaled by 1/255; of a target it may be a class" in message


def test_fields_of_a_batch_have_the_same_examples(refusal: Callable[..., str]) -> None:
    batch = [TensorSpec(name=name, shape=(2, 3), dtype="float32", role=Role.BATCH) for name in ("x", "label")]
    arrays = {"x": np.zeros((7, 3), np.float32), "label": np.zeros((10, 3), np.float32)}
    assert "different lengths (x 7, label 10)" in refusal(UsageError, lambda: bind(arrays, tuple(batch)))
    twice = [dataclasses.replace(batch[0], name=name) for name in ("inputs", "features")]
    message = refusal(UsageError, lambda: bind({"image": arrays["x"]}, tuple(twice)))
    assert "the batch's inputs, features would all take the data's `image`" in message


def test_weights_of_another_byte_order_are_written_whole(tmp_path: Path) -> None:
    array = np.arange(3, dtype=">f4")
    save_parameters(tmp_path / "w.safetensors", {"a": array})
    (found,) = read_tensors(tmp_path / "w.safetensors").values()
    np.testing.assert_array_equal(found, array)


def test_a_folder_of_data_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    nested = Dataset.from_arrays({"about/mask": np.zeros((4, 2), np.float32)})
    assert "`about/mask` cannot be the name of a file" in refusal(
        UsageError, lambda: write_folder(tmp_path / "a", nested)
    )
    plain = Dataset.from_arrays({"x": np.zeros((4, 2), np.float32), "y": np.zeros(4, np.int32)})

    def full(path: Path, array: np.ndarray) -> None:
        path.write_bytes(b"a part")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        assert "No space left" in refusal(SonewError, lambda: write_folder(tmp_path / "a", plain))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    write_folder(tmp_path / "a", plain)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        f"{part}_{name}.npy" for part in ("test", "train") for name in ("x", "y")
    ]


def test_steps_take_what_arrays_can_be_made_of(
    bundle: Bundle, cpu: Device, tiny_data: Dataset, refusal: Callable[..., str]
) -> None:
    program = Program.load(bundle, cpu)
    batch = {name: array[: bundle.manifest.batch_size] for name, array in tiny_data.train.items()}
    losses = []
    for given, rate in ((batch, 0.05), ({name: array.tolist() for name, array in batch.items()}, np.array(0.05))):
        state = TrainingState.initial(program, seed=3)
        as_given = {name: np.asarray(each, tiny_data.train[name].dtype) for name, each in given.items()}
        losses += [[state.step(as_given if rate is not given else given, rate) for _ in range(2)]]
    assert losses[0] == losses[1]
    assert "the learning rate is 1e+39" in refusal(UsageError, lambda: state.step(batch, 1e39))
    assert "the bundle takes no foo at run time" in refusal(UsageError, lambda: state.use({"foo": 1.0}))
