"""A loaded program: calls by name, the state in place, batches checked, nothing leaked."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime import (
    Alone,
    BoundData,
    Dataset,
    Device,
    Program,
    TrainingState,
    bind,
    evaluate,
    open_bundle,
    predict,
    save_parameters,
)
from sonew_compiled.runtime.stepper import stepper_of


@pytest.fixture
def program(tiny_bundle: Path, device: Device) -> Program:
    return Program.load(open_bundle(tiny_bundle), device)


@pytest.fixture
def cpu_program(tiny_bundle: Path, cpu: Device) -> Program:
    return Program.load(open_bundle(tiny_bundle), cpu)


@pytest.fixture
def data(tiny_data: Dataset, cpu_program: Program) -> BoundData:
    return bind(tiny_data.train, cpu_program.manifest.batch)


def learning_rate(program: Program, value: float) -> object:
    return program.device.upload(np.array(value, np.float32))


def reference_step(
    state: dict[str, np.ndarray], x: np.ndarray, rate: float
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """`train_step` in float64, except for the rounding of the bias."""
    w, b = state["params/w"].astype(float), state["params/b"].astype(float)
    r = x @ w + b - x
    momentum = 0.9 * state["optimizer/0/w"] + 0.25 * x.T @ r
    return {
        "params/w": w - rate * momentum,
        "params/b": (b - rate * r.sum(0)).astype(ml_dtypes.bfloat16),
        "optimizer/0/w": momentum,
        "optimizer/count": state["optimizer/count"] + 1,
    }, np.sum(r * r) / 8


def test_the_target_follows_the_device(program: Program) -> None:
    assert program.target.name == ("vulkan" if program.device.name == "vulkan" else "cpu")


def test_init_gives_the_state_by_name(program: Program) -> None:
    state = TrainingState.initial(program, seed=5).download()
    np.testing.assert_allclose(state["params/w"], (np.arange(16).reshape(4, 4) + 5) * 0.01, rtol=1e-6)
    assert [(k, v.dtype.name, v.shape) for k, v in state.items()] == [
        ("params/w", "float32", (4, 4)),
        ("params/b", "bfloat16", (4,)),
        ("optimizer/0/w", "float32", (4, 4)),
        ("optimizer/count", "int32", ()),
    ]


def test_steps_update_the_state_in_place(program: Program, data: BoundData) -> None:
    state = TrainingState.initial(program, seed=0)
    expected = state.download()
    for step in range(5):
        batch = data.training_batch(0, step)
        expected, expected_loss = reference_step(expected, batch["image"], 0.05)
        loss = state.step(program.upload_batch(batch), learning_rate(program, 0.05))
        np.testing.assert_allclose(loss, expected_loss, rtol=1e-4)
    for name, array in state.download().items():
        np.testing.assert_allclose(array.astype(float), expected[name].astype(float), rtol=1e-2, atol=1e-4)
    assert state.download()["optimizer/count"] == 5


def test_a_state_goes_to_the_host_and_back(program: Program, data: BoundData) -> None:
    state = TrainingState.initial(program, seed=1)
    rate = learning_rate(program, 0.05)
    state.step(program.upload_batch(data.training_batch(0, 0)), rate)
    twin = TrainingState.from_arrays(program, state.download())
    batch = program.upload_batch(data.training_batch(0, 1))
    assert state.step(batch, rate) == twin.step(batch, rate)
    for name, array in state.download().items():
        assert array.tobytes() == twin.download()[name].tobytes()
    assert state.parameters().keys() == {"params/w", "params/b"}


@pytest.mark.parametrize("count", [1, 7, 8, 9, 83])
def test_evaluate_is_the_mean_over_all_examples(program: Program, count: int, tiny_data: Dataset) -> None:
    images = tiny_data.train["image"][:count]
    state = TrainingState.initial(program, seed=0)
    parameters = state.parameters()
    x = images.reshape(count, 4).astype(float)
    residual = x @ parameters["params/w"] + parameters["params/b"].astype(float) - x
    loss = evaluate(program, state.buffers, bind({"image": images}, program.manifest.batch))
    np.testing.assert_allclose(loss, np.sum(residual**2, axis=1).mean(), rtol=1e-6)


def test_predict(program: Program, data: BoundData) -> None:
    state = TrainingState.initial(program, seed=0)
    batch = data.training_batch(0, 0)
    np.testing.assert_allclose(
        predict(program, state.buffers, batch), batch["image"] @ state.parameters()["params/w"], rtol=1e-5
    )


def test_parameters_replace_those_of_init(cpu_program: Program, refusal: Callable[..., str]) -> None:
    given = {"params/w": np.eye(4, dtype=np.float32), "params/b": np.ones(4, ml_dtypes.bfloat16)}
    state = TrainingState.initial(cpu_program, seed=0, parameters=given).download()
    np.testing.assert_array_equal(state["params/w"], np.eye(4))
    np.testing.assert_array_equal(state["params/b"].astype(float), 1)

    def said(**changes: np.ndarray) -> str:
        parameters = given | {f"params/{name}": array for name, array in changes.items()}
        return refusal(SonewError, lambda: TrainingState.initial(cpu_program, seed=0, parameters=parameters))

    assert "'params/b' has dtype float32 where the bundle has bfloat16" in said(b=np.ones(4, np.float32))
    assert "'params/w' has shape [2, 8] where the bundle has [4, 4]" in said(w=np.ones((2, 8), np.float32))
    assert "no 'params/v'" in said(v=np.ones(1))


def test_parameters_in_the_bundle_replace_those_of_init(
    bundle_copy: Path, cpu: Device, refusal: Callable[..., str]
) -> None:
    path = bundle_copy / "params.safetensors"
    save_parameters(path, {"params/w": np.eye(4, dtype=np.float32), "params/b": np.ones(4, ml_dtypes.bfloat16)})
    raw = json.loads((bundle_copy / "manifest.json").read_text())
    raw["files"][path.name] = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "size": path.stat().st_size,
    }
    (bundle_copy / "manifest.json").write_text(json.dumps(raw))
    program = Program.load(open_bundle(bundle_copy), cpu)
    np.testing.assert_array_equal(TrainingState.initial(program, seed=0).parameters()["params/w"], np.eye(4))
    path.write_bytes(path.read_bytes()[:-1])
    assert "truncated" in refusal(SonewError, lambda: TrainingState.initial(program, seed=0))


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_seeds_out_of_range_are_refused(cpu_program: Program, seed: int, refusal: Callable[..., str]) -> None:
    assert str(seed) in refusal(UsageError, lambda: TrainingState.initial(cpu_program, seed=seed))


def test_a_wrong_batch_is_refused(cpu_program: Program, refusal: Callable[..., str]) -> None:
    def said(**batch: np.ndarray) -> str:
        return refusal(UsageError, lambda: cpu_program.upload_batch(batch))

    assert "'image' is float32[7, 4] where the bundle takes float32[8, 4]" in said(image=np.ones((7, 4), np.float32))
    assert "'image' is float64[8, 4] where the bundle takes float32[8, 4]" in said(image=np.ones((8, 4)))
    assert "no field 'image'" in said(label=np.ones(8, np.int32))
    assert "it has none" in said()


def test_a_failure_of_the_device_names_the_call(cpu_program: Program, refusal: Callable[..., str]) -> None:
    # Only the executable's own check finds a buffer of another shape.
    buffers = TrainingState.initial(cpu_program, seed=0).buffers
    wrong = cpu_program.device.upload(np.ones((8, 5), np.float32))
    message = refusal(SonewError, lambda: cpu_program.call("eval_step", buffers | {"batch/image": wrong}))
    assert "eval_step" in message
    assert "local-sync" in message
    assert ".c:" not in message


def test_a_bundle_without_predict_says_so(bundle_copy: Path, cpu: Device, refusal: Callable[..., str]) -> None:
    raw = json.loads((bundle_copy / "manifest.json").read_text())
    del raw["functions"]["predict"]
    (bundle_copy / "manifest.json").write_text(json.dumps(raw))
    program = Program.load(open_bundle(bundle_copy), cpu)
    assert not program.has("predict")
    assert "no predict" in refusal(UsageError, lambda: predict(program, {}, {}))


def test_a_function_that_the_executable_lacks_is_refused(
    bundle_copy: Path, cpu: Device, refusal: Callable[..., str]
) -> None:
    raw = json.loads((bundle_copy / "manifest.json").read_text())
    raw["functions"]["dream"] = raw["functions"]["predict"]
    (bundle_copy / "manifest.json").write_text(json.dumps(raw))
    assert "'dream'" in refusal(SonewError, lambda: Program.load(open_bundle(bundle_copy), cpu))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("device", ["local-sync", "local-task"], indirect=True)
def test_memory_stays_the_same(program: Program, data: BoundData) -> None:
    state = TrainingState.initial(program, seed=0)
    sizes = {}
    for step in range(1, 2001):
        state.step(program.upload_batch(data.training_batch(0, step)), learning_rate(program, 0.01))
        if step in (100, 2000):
            sizes[step] = resident_bytes()
    assert sizes[2000] - sizes[100] < 2 << 20


@pytest.mark.parametrize("kind", [IndexError, TypeError, OSError, KeyError])
def test_whatever_the_bindings_raise_is_an_error_of_the_device(
    tiny_bundle: Path, cpu: Device, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    class Failing:
        def invoke(self, *_: object) -> None:
            raise kind("slot 0 is out of range")

    program = Program.load(open_bundle(tiny_bundle), cpu)
    monkeypatch.setattr(program, "_context", Failing())
    message = refusal(SonewError, lambda: TrainingState.initial(program, seed=0))
    assert message.startswith(f"init of {tiny_bundle} failed on device local-sync: ")
    assert "slot 0 is out of range" in message


def test_a_bundle_without_micro_batches_is_for_one_worker(cpu_program: Program) -> None:
    class Two(Alone):
        count = 2

    with pytest.raises(UsageError, match="was compiled for one worker, and there are 2: compile it with --micro-batch"):
        stepper_of(cpu_program, Two())
