"""The runtime as a library: arrays and numbers as they come, short reprs, and the example program."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_compiled import runtime
from sonew_compiled.errors import UsageError
from sonew_compiled.runtime import (
    Bundle,
    Checkpoint,
    Dataset,
    Device,
    Program,
    TrainingState,
    bind,
    evaluate,
    load_weights,
    open_bundle,
    open_device,
    read_metrics,
)

EXAMPLE = Path(__file__).parents[2] / "docs/examples/embed.py"


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture
def program(bundle: Bundle, cpu: Device) -> Program:
    return Program.load(bundle, cpu)


def test_bundles_devices_and_data_may_be_paths_and_names(
    tiny_bundle: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    program = Program.load(str(tiny_bundle), "local-sync")
    assert (program.bundle.path, program.device.name) == (tiny_bundle, "local-sync")
    assert Program.load(tiny_bundle).device.name == "local-task"
    images = np.random.default_rng(0).integers(0, 256, (24, 2, 2), np.uint8)
    np.savez(tmp_path / "data.npz", train_image=images[:16], test_image=images[16:])
    settings = runtime.TrainSettings(epochs=1, learning_rate=0.05)
    runtime.train(tiny_bundle, str(tmp_path / "data.npz"), settings, output=tmp_path / "run")
    opened = runtime.load_dataset(str(tmp_path / "data.npz")), settings, open_device()
    runtime.train(open_bundle(tiny_bundle), *opened, output=tmp_path / "other")
    trained = [runtime.load_trained(tiny_bundle, tmp_path / name).arrays for name in ("run", "other")]
    assert all(trained[0][name].tobytes() == array.tobytes() for name, array in trained[1].items())
    assert "there is no bundle at" in refusal(UsageError, lambda: Program.load(tmp_path / "none"))
    assert "there is no device 'abacus'" in refusal(UsageError, lambda: Program.load(tiny_bundle, "abacus"))


def test_a_step_takes_arrays_and_a_number(program: Program, refusal: Callable[..., str]) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 2, 2), np.uint8)
    scaled = (images.reshape(8, 4) / np.float32(255)).astype(np.float32)
    one, other = (TrainingState.initial(program, seed=0) for _ in range(2))
    for rate in (0.05, 0.05, 0.1, np.float32(0.025), 0):
        on_device = program.device.upload(np.array(rate, np.float32))
        expected = other.step(program.upload_batch({"image": scaled}), on_device)
        assert one.step({"image": images}, rate) == expected
    states = one.download(), other.download()
    assert all(array.tobytes() == states[1][name].tobytes() for name, array in states[0].items())
    for rate in (-1.0, np.nan, np.inf):
        said = refusal(UsageError, lambda rate=rate: one.step({"image": images}, rate))
        assert said == f"the learning rate is {float(rate)}: give zero or a positive number, such as 1e-2"
    for count in (7, 9):
        few = np.zeros((count, 4), np.float32)
        assert f"has {count} examples where the bundle takes 8" in refusal(
            UsageError, lambda few=few: one.step({"image": few}, 0.1)
        )
    assert "no field image" in refusal(UsageError, lambda: one.step({"label": images}, 0.1))


def test_evaluation_takes_arrays(program: Program, tiny_data: Dataset) -> None:
    state = TrainingState.initial(program, seed=0)
    bound = bind(tiny_data.test, program.manifest.batch)
    assert evaluate(program, state.buffers, tiny_data.test) == evaluate(program, state.buffers, bound)


def test_reprs_are_short(program: Program, tiny_data: Dataset, cpu: Device) -> None:
    bundle = program.bundle
    state = TrainingState.initial(program, seed=0)
    manifest = "Manifest(tiny with momentum in f32, batches of 8, for cpu, vmvx, vulkan)"
    assert repr(bundle.manifest) == manifest
    assert repr(bundle) == f"Bundle({bundle.path}: {manifest})"
    assert repr(program) == f"Program(cpu of {bundle.path} on local-sync)"
    assert repr(state) == f"TrainingState(4 tensors of {program!r})"
    assert repr(tiny_data) == "Dataset(tiny-data: image float32[2, 2]; 83 examples to train on, 11 to test on)"
    bound = bind(tiny_data.train, bundle.manifest.batch)
    assert repr(bound) == "BoundData(83 examples of image, in batches of 8)"
    assert repr(Checkpoint(step=3, tensors=state.download(), settings={})) == "Checkpoint(step=3, 4 tensors)"
    assert repr(cpu) == f"Device(local-sync: {cpu.description})"


def test_what_is_exported_is_there_and_documented() -> None:
    assert re.fullmatch(r"\d+\.\d+.*", runtime.__version__)
    assert {"train", "predict", "Dataset", "TrainingState", "__version__"} <= set(runtime.__all__)
    for name in runtime.__all__:
        thing: Any = getattr(runtime, name)
        if callable(thing):
            assert (thing.__doc__ or "").strip(), name


def test_the_example_program(small: Any, tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 35
    process = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE, small.bundle, small.data],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    *epochs, last = process.stdout.splitlines()
    losses = [row["test_loss"] for row in read_metrics(tmp_path / "run")]
    assert epochs == [f"{number} {loss}" for number, loss in enumerate(losses, 1)]
    said = re.fullmatch(r"test loss (\S+) after 20 more steps, predictions \(3, 36\)", last)
    assert said
    program = Program.load(open_bundle(small.bundle), open_device("local-sync"))
    weights = load_weights(tmp_path / "weights.safetensors", program.manifest)
    buffers = TrainingState.initial(program, seed=0, parameters=weights).buffers
    found = evaluate(program, buffers, {"image": np.load(small.data)["test_image"]})
    assert float(said.group(1)) == pytest.approx(found, rel=1e-5)
