"""Batches that are taken from a data set on the device are those that the host copies there, bit for bit."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from sonew_compiled.contract import EVAL_STEP, GRADIENTS, TRAIN_STEP
from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import (
    Bundle,
    Dataset,
    Device,
    Program,
    TrainSettings,
    bind,
    load_checkpoint,
    open_bundle,
    open_device,
    train,
)
from sonew_compiled.runtime import examples as examples_module
from sonew_compiled.runtime.examples import Examples
from sonew_compiled.runtime.manifest import Manifest
from sonew_compiled.runtime.stepper import stepper_of
from sonew_compiled.runtime.workers import Alone

SIZE, COUNT = 6, 23
RNG = np.random.default_rng(0)
# Rows of 20 numbers do not fill the vectors of a kernel, nor do 23 of 3 bytes fill words.
PIXELS = RNG.integers(0, 256, (COUNT, 2, 10), np.uint8)
PIXELS[:13].reshape(-1)[:256] = np.arange(256)
DATA = {
    "image": PIXELS,
    "colour": PIXELS[:, 0, :3],
    "weight": RNG.random(COUNT, np.float32),
    "label": RNG.integers(0, 3, COUNT, np.int32),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A linear model of all fields, for processors and as bytecode."""
    import jax
    import jax.numpy as jnp

    from sonew_compiled.compile import compile_training
    from sonew_compiled.presets import optimizer_settings

    def loss(w: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
        image = batch["image"].reshape(-1, 20) @ w[:20] + batch["colour"] @ w[20:]
        return jnp.mean(batch["weight"] * (image - batch["label"]) ** 2)

    path = tmp_path_factory.mktemp("bundles") / "fields"
    compile_training(
        loss,
        lambda key: jnp.zeros(23),
        optimizer_settings("sgd"),
        {
            "image": jax.ShapeDtypeStruct((SIZE, 2, 2, 5), jnp.float32),
            "colour": jax.ShapeDtypeStruct((SIZE, 3), jnp.float32),
            "weight": jax.ShapeDtypeStruct((SIZE,), jnp.float32),
            "label": jax.ShapeDtypeStruct((SIZE,), jnp.int32),
        },
        output=path,
        targets=("cpu", "vmvx"),
        check=False,
    )
    return open_bundle(path)


def only(bundle: Bundle, target: str) -> Bundle:
    (chosen,) = (each for each in bundle.manifest.targets if each.name == target)
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, targets=(chosen,)))


def streamed(bundle: Bundle) -> Bundle:
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, takes=()))


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_every_conversion_gives_the_bits_of_the_host(bundle: Bundle, target: str) -> None:
    program = Program.load(only(bundle, target), open_device())
    variants = [
        DATA,
        {**DATA, "image": RNG.normal(size=PIXELS.shape), "label": DATA["label"].astype(np.int64)},
        {**DATA, "image": RNG.normal(size=PIXELS.shape).astype(np.float16), "weight": DATA["label"] > 1},
        {**DATA, "image": PIXELS > 128, "weight": PIXELS[:, 0, 0], "label": PIXELS[:, 0, 1]},
        {**DATA, "colour": RNG.normal(size=(COUNT, 3)).astype(np.float32)},
    ]
    numbers = np.array([22, 0, 3, 3, 21, 12])
    for arrays in variants:
        data = bind(arrays, bundle.manifest.batch)
        examples = Examples(program, data)
        assert examples.is_resident
        want = data.take(numbers)
        for function in (TRAIN_STEP, EVAL_STEP):
            fields = program.batch_fields(function)
            got = examples.batch(numbers, function=function)
            assert got.keys() == {spec.name for spec in fields.values()}
            for field, spec in fields.items():
                np.testing.assert_array_equal(
                    program.download(spec, got[spec.name]).view(np.int32), want[field].view(np.int32), strict=True
                )


def test_both_forms_train_and_evaluate_to_the_same_bits(bundle: Bundle, tmp_path: Path) -> None:
    dataset = Dataset.from_arrays(DATA, {name: array[:8] for name, array in DATA.items()})
    ends = []
    for number, (each, device) in enumerate(
        [(bundle, "local-task"), (bundle, "local-sync"), (streamed(bundle), "local-task")]
    ):
        result = train(
            each,
            dataset,
            TrainSettings(epochs=3, learning_rate=0.1),
            open_device(device),
            output=tmp_path / str(number),
        )
        tensors = load_checkpoint(result.checkpoint, bundle.manifest).tensors
        ends.append((result.on_train, result.on_test, {name: array.tobytes() for name, array in tensors.items()}))
    assert ends[0] == ends[1] == ends[2]
    assert ends[0][0].loss < np.mean(DATA["weight"] * DATA["label"] ** 2)


def test_micro_batches_are_taken_one_by_one(parts_bundle: Path, cpu: Device) -> None:
    program = Program.load(open_bundle(parts_bundle), cpu)
    data = bind({"image": RNG.integers(0, 256, (20, 4), np.uint8)}, program.manifest.batch)
    examples, stepper = Examples(program, data), stepper_of(program, Alone())
    assert examples.is_resident
    numbers = data.training_indices(3, 0)
    (spec,) = program.batch_fields(GRADIENTS).values()
    placed, taken = stepper.place(data.take(numbers)), stepper.take(examples, numbers)
    assert len(placed) == len(taken) == 4
    for one, other in zip(placed, taken, strict=True):
        np.testing.assert_array_equal(
            program.download(spec, other[spec.name]), program.download(spec, one[spec.name]), strict=True
        )


def test_other_data_are_copied_batch_by_batch(
    bundle: Bundle, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program.load(bundle, cpu)
    batch = bundle.manifest.batch
    data = bind(DATA, batch)
    np.save(tmp_path / "image.npy", PIXELS)
    mapped = bind({**DATA, "image": np.load(tmp_path / "image.npy", mmap_mode="r")}, batch)
    assert not Examples(program, mapped).is_resident
    assert not Examples(Program.load(streamed(bundle), cpu), data).is_resident
    # 20 + 3 bytes and two numbers of an example.
    monkeypatch.setattr(examples_module, "physical_memory", lambda: 16 * COUNT * 31)
    assert Examples(program, data).is_resident
    assert not Examples(program, data, copies=2).is_resident
    numbers = np.arange(SIZE)
    copied, taken = (Examples(program, each).batch(numbers, function=EVAL_STEP) for each in (mapped, data))
    for spec in program.batch_fields(EVAL_STEP).values():
        one, other = (program.download(spec, each[spec.name]) for each in (copied, taken))
        np.testing.assert_array_equal(one, other, strict=True)

    def full(array: np.ndarray) -> None:
        raise SonewError(f"{array.nbytes} bytes cannot be put on the device")

    monkeypatch.setattr(cpu, "upload", full)
    assert not Examples(program, data).is_resident


def test_a_bundle_of_before_has_no_such_functions(bundle: Bundle) -> None:
    text = bundle.manifest_bytes.decode()
    raw = json.loads(text)
    assert sorted(raw.pop("takes")) == [
        "take_float32_float32_6",
        "take_float32_float32_6x2x2x5",
        "take_float32_float32_6x3",
        "take_int32_int32_6",
        "take_uint8_float32_6x2x2x5",
        "take_uint8_float32_6x3",
    ]
    older = Manifest.from_json(json.dumps(raw), source="manifest.json")
    assert older == dataclasses.replace(bundle.manifest, takes=())
