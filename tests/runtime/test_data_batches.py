"""Batches: the binding, conversion, order and slicing of fields."""

import contextlib
import hashlib
import threading

import ml_dtypes
import numpy as np
import pytest

from sonew_compiled.contract import Role
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.data import bind, epoch_order, load_dataset
from sonew_compiled.runtime.manifest import TensorSpec

BYTES = np.arange(256, dtype=np.uint8)


def spec(name: str, shape: tuple[int, ...], dtype: str) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype, role=Role.BATCH)


def convert(array: np.ndarray, dtype: str, *, name: str = "image") -> np.ndarray:
    """The field of a batch of all examples."""
    data = bind({name: array}, (spec(name, array.shape, dtype),))
    ((batch, valid),) = data.evaluation_batches()
    assert valid == len(array)
    return batch[name]


def refusal(arrays: dict[str, np.ndarray], *batch: TensorSpec) -> str:
    with pytest.raises(UsageError) as caught:
        bind(arrays, batch)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# A checkpoint's step refers to this order, so these values must never change.
@pytest.mark.parametrize(
    ("seed", "epoch", "order"),
    [
        (0, 0, [0, 7, 8, 6, 9, 5, 1, 3, 2, 4]),
        (7, 3, [8, 4, 5, 3, 6, 0, 9, 7, 1, 2]),
        (2**31 - 1, 99, [2, 4, 8, 1, 9, 5, 7, 3, 6, 0]),
    ],
)
def test_the_order_of_an_epoch_is_pinned(seed: int, epoch: int, order: list[int]) -> None:
    assert epoch_order(seed, epoch, 10).tolist() == order


def test_the_order_of_the_full_mnist_is_pinned() -> None:
    order = epoch_order(0, 1, 60_000)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(60_000))
    assert (
        hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()
        == "a4e3b174b8fc4273e3bfe1081f18bde2793e286643af575b4c749c0ac64f4e5d"
    )


def test_the_order_is_numpy_philox() -> None:
    expected = np.random.Generator(np.random.Philox(key=[5, 6])).permutation(1000)
    np.testing.assert_array_equal(epoch_order(5, 6, 1000), expected)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64 - 1])
def test_seeds_that_philox_would_confuse_are_refused(seed: int) -> None:
    with pytest.raises(UsageError, match="accepted are 0 to"):
        epoch_order(seed, 0, 10)


def test_the_largest_seeds_have_orders_of_their_own() -> None:
    assert epoch_order(2**63 - 1, 0, 100).tolist() != epoch_order(2**63 - 2, 0, 100).tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_bytes_are_scaled_in_float32_then_rounded(dtype: str) -> None:
    batch = convert(BYTES, dtype)
    exact = np.array([float(np.float32(x) / np.float32(255)) for x in range(256)], np.float32)
    np.testing.assert_array_equal(batch, exact.astype(np.dtype(dtype)), strict=True)
    assert float(batch[0]) == 0
    assert float(batch[255]) == 1


def test_the_same_dtype_is_kept() -> None:
    for array in (BYTES, BYTES.astype(np.float32), BYTES.astype(np.float16), BYTES.astype(np.int64)):
        np.testing.assert_array_equal(convert(array, array.dtype.name), array, strict=True)


def test_float64_is_rounded_to_float32() -> None:
    values = np.array([0.1, 1e-40, -3.4e38])
    np.testing.assert_array_equal(convert(values, "float32"), values.astype(np.float32), strict=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64, np.uint64])
def test_labels_become_int32(dtype: type) -> None:
    labels = np.array([0, 9, 127], dtype)
    np.testing.assert_array_equal(convert(labels, "int32", name="label"), labels.astype(np.int32), strict=True)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([0, 1, 1], np.uint8), "bool"),
        (np.array([1, 0, 1]), "bool"),
        (np.array([True, False]), "bool"),
        (np.array([True, False]), "float32"),
        (np.array([True, False]), "int32"),
        (np.array([65504, -0.1, 2**-24], np.float16), "float32"),
        (np.array([3e38, -0.1], ml_dtypes.bfloat16), "float32"),
    ],
)
def test_dtypes_that_hold_the_values_exactly(array: np.ndarray, dtype: str) -> None:
    np.testing.assert_array_equal(convert(array, dtype), array.astype(dtype), strict=True)


@pytest.mark.parametrize(
    ("array", "dtype", "said"),
    [
        (np.array([0, 2**31]), "int32", "its values 0 to 2147483648 do not fit"),
        (np.array([-(2**31) - 1]), "int32", "do not fit"),
        (np.array([2**64 - 1], np.uint64), "int32", "do not fit"),
        (np.array([1e39, 0]), "float32", "do not fit"),
        (np.zeros(3, np.float32), "bfloat16", "of float32 (), the bundle's `image` asks for bfloat16 ()"),
        (np.zeros(3, np.float16), "int32", "accepted are the same dtype"),
        (np.array([0, 2]), "bool", "its values 0 to 2 do not fit"),
        (np.zeros(3, np.float64), "bfloat16", "accepted are the same dtype"),
        (np.zeros(3, np.int32), "float32", "accepted are the same dtype"),
        (np.zeros(3, np.float32), "int32", "accepted are the same dtype"),
        (np.zeros(3, np.int8), "uint8", "accepted are the same dtype"),
        (np.zeros(3, np.float32), "float9", "does not know"),
    ],
)
def test_dtypes_and_values_that_do_not_fit(array: np.ndarray, dtype: str, said: str) -> None:
    assert said in refusal({"image": array}, spec("image", array.shape, dtype))


def test_labels_are_never_scaled() -> None:
    assert "accepted are" in refusal({"label": BYTES}, spec("label", (256,), "float32"))


@pytest.mark.parametrize("shape", [(784,), (28, 28), (28, 28, 1), (1, 784)])
def test_an_example_takes_the_shape_of_the_bundle(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    batch = bind({"image": images}, (spec("image", (6, *shape), "uint8"),)).training_batch(0, 0)["image"]
    assert batch.shape == (6, *shape)
    np.testing.assert_array_equal(batch.reshape(6, 784), images[epoch_order(0, 0, 6)].reshape(6, 784))


def test_another_number_of_elements_is_refused() -> None:
    message = refusal({"image": np.zeros((3, 28, 28), np.uint8)}, spec("image", (3, 100), "float32"))
    assert "uint8 (28, 28)" in message
    assert "float32 (100,)" in message


def test_a_bare_batch_takes_the_images() -> None:
    arrays = {"image": BYTES, "label": BYTES.astype(np.int32)}
    data = bind(arrays, (spec("batch", (256,), "uint8"),))
    assert list(data.training_batch(0, 0)) == ["batch"]
    # A field of the data with the same name is preferred.
    data = bind(arrays, (spec("label", (256,), "int32"),))
    assert data.training_batch(0, 0)["label"].dtype == np.int32


@pytest.mark.parametrize(
    ("data", "batch", "taken"),
    [
        (("image", "label"), ("x", "y"), ("image", "label")),
        (("image", "target"), ("inputs", "targets"), ("image", "target")),
        (("x", "y"), ("image", "label"), ("x", "y")),
        (("x", "features", "y"), ("x", "labels"), ("x", "y")),
        (("tokens", "about", "y"), ("about", "tokens"), ("about", "tokens")),
        (("x",), ("features",), ("x",)),
        (("image", "x"), ("anything",), ("image",)),
    ],
)
def test_fields_that_stand_for_each_other(
    data: tuple[str, ...], batch: tuple[str, ...], taken: tuple[str, ...]
) -> None:
    arrays = {name: np.full((2, 3), index, np.float32) for index, name in enumerate(data)}
    ((made, _),) = bind(arrays, tuple(spec(name, (2, 3), "float32") for name in batch)).evaluation_batches()
    assert {name: made[name][0, 0] for name in batch} == {
        name: data.index(source) for name, source in zip(batch, taken, strict=True)
    }


def test_fields_that_could_stand_for_each_other_in_two_ways_are_refused() -> None:
    both = {"x": BYTES, "features": BYTES, "y": BYTES}
    assert "no field inputs" in refusal(both, spec("inputs", (256,), "uint8"), spec("y", (256,), "uint8"))
    assert "no field image" in refusal(both, spec("image", (256,), "uint8"), spec("y", (256,), "uint8"))
    crossed = {"x": BYTES, "tokens": BYTES}
    assert "no field y" in refusal(crossed, spec("x", (256,), "uint8"), spec("y", (256,), "uint8"))


def test_a_field_that_the_data_lacks() -> None:
    message = refusal({"image": BYTES}, spec("image", (256,), "uint8"), spec("label", (256,), "int32"))
    assert "no field label" in message
    assert "no field image" in refusal({"x": BYTES}, spec("batch", (256,), "uint8"))


@pytest.mark.parametrize("shapes", [[()], [(0,)], [(2,), (3,)], [(2,), ()]])
def test_a_bundle_without_one_batch_size(shapes: list[tuple[int, ...]]) -> None:
    batch = [spec(f"f{i}", shape, "uint8") for i, shape in enumerate(shapes)]
    assert "same batch size" in refusal({"f0": BYTES, "f1": BYTES}, *batch)


def test_a_bundle_without_a_batch() -> None:
    assert "no fields" in refusal({"image": BYTES})


def test_training_batches_follow_the_order_and_drop_the_rest() -> None:
    n, size, seed = 11, 3, 4
    arrays = {"image": np.arange(n, dtype=np.uint8), "label": np.arange(n, dtype=np.int32) * 10}
    data = bind(arrays, (spec("image", (size,), "uint8"), spec("label", (size,), "int32")))
    assert (data.examples, data.batch_size, data.steps_per_epoch) == (11, 3, 3)
    expected = [epoch_order(seed, e, n)[i * size :][:size] for e in range(3) for i in range(3)]
    for step, rows in enumerate(expected):
        batch = data.training_batch(seed, step)
        np.testing.assert_array_equal(batch["image"], rows.astype(np.uint8), strict=True)
        np.testing.assert_array_equal(batch["label"], rows.astype(np.int32) * 10, strict=True)
        assert batch["image"].flags.c_contiguous
        assert batch["image"].flags.writeable
    # The batches do not depend on earlier requests, in any order and with any seed.
    for step in (8, 0, 5):
        np.testing.assert_array_equal(data.training_batch(seed, step)["image"], expected[step])
        np.testing.assert_array_equal(data.training_batch(9, 0)["image"], epoch_order(9, 0, n)[:size])


def test_batches_ahead_are_those_asked_for_one_by_one() -> None:
    data = bind({"image": BYTES}, (spec("image", (64,), "uint8"),))
    expected = [data.training_batch(3, step)["image"] for step in range(2, 9)]
    here = threading.get_ident()

    def place(batch: dict[str, np.ndarray]) -> tuple[int, np.ndarray]:
        return threading.get_ident(), batch["image"]

    with contextlib.closing(data.training_batches(3, 2, place)) as batches:
        for image in expected:
            placed_by, placed = next(batches)
            assert placed_by != here
            np.testing.assert_array_equal(placed, image)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sonew-batch")]
    with contextlib.closing(data.training_batches(-1, 0, place)) as batches, pytest.raises(UsageError, match="seed -1"):
        next(batches)


def test_what_goes_wrong_in_placing_a_batch_is_raised_where_it_is_asked_for() -> None:
    data = bind({"image": BYTES}, (spec("image", (64,), "uint8"),))

    def full(batch: dict[str, np.ndarray]) -> None:
        raise SonewError(f"no room for {batch['image'].nbytes} bytes")

    with contextlib.closing(data.training_batches(0, 0, full)) as batches, pytest.raises(SonewError, match="64 bytes"):
        next(batches)


def test_going_on_within_an_epoch_does_not_shuffle_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(seed: int, epoch: int, n: int) -> np.ndarray:
        calls.append((seed, epoch))
        return epoch_order(seed, epoch, n)

    monkeypatch.setattr("sonew_compiled.runtime.data.batches.epoch_order", counted)
    data = bind({"image": BYTES}, (spec("image", (64,), "uint8"),))
    for step in range(9):
        data.training_batch(1, step)
    assert calls == [(1, 0), (1, 1), (1, 2)]


def test_evaluation_pads_with_the_last_example() -> None:
    data = bind({"image": BYTES[:7]}, (spec("image", (3,), "uint8"),))
    batches = [(batch["image"].tolist(), valid) for batch, valid in data.evaluation_batches()]
    assert batches == [([0, 1, 2], 3), ([3, 4, 5], 3), ([6, 6, 6], 1)]
    assert len(list(data.evaluation_batches())) == 3


def test_evaluation_of_less_than_one_batch() -> None:
    data = bind({"image": BYTES[:2]}, (spec("image", (4,), "uint8"),))
    assert [(batch["image"].tolist(), valid) for batch, valid in data.evaluation_batches()] == [([0, 1, 1, 1], 2)]


def test_training_on_less_than_one_batch_is_refused() -> None:
    data = bind({"image": BYTES[:7]}, (spec("image", (8,), "uint8"),))
    with pytest.raises(UsageError, match=r"7 training examples, less than one batch of 8; .*--batch-size 7"):
        data.training_batch(0, 0)
    with pytest.raises(UsageError, match="--batch-size 7"):
        _ = data.steps_per_epoch


def test_the_embedded_digits_as_the_autoencoder_reads_them() -> None:
    digits = load_dataset("mnist-10k")
    data = bind(digits.train, (spec("image", (1000, 784), "bfloat16"),))
    assert data.steps_per_epoch == 9
    batch = data.training_batch(0, 10)["image"]
    assert batch.shape == (1000, 784)
    assert batch.dtype == ml_dtypes.bfloat16
    rows = digits.train["image"][epoch_order(0, 1, 9000)[1000:2000]].reshape(1000, 784)
    np.testing.assert_array_equal(batch, (rows.astype(np.float32) / np.float32(255)).astype(ml_dtypes.bfloat16))
    ((_, valid),) = bind(digits.test, (spec("image", (1000, 784), "float32"),)).evaluation_batches()
    assert valid == 1000


@pytest.mark.parametrize(("labels", "said"), [((0, 10), "0 to 10"), ((-1, 8), "-1 to 8"), ((1, 1000), "1 to 1000")])
def test_labels_beyond_the_classes_are_refused(labels: tuple[int, int], said: str) -> None:
    array = np.array([labels[0], 3, labels[1]])
    fields = (spec("label", (2,), "int32"),)
    with pytest.raises(UsageError) as caught:
        bind({"label": array}, fields, {"label": 10})
    assert str(caught.value) == (
        f"the data's `label` has labels from {said}; the model has 10 classes, whose labels are 0 to 9: number them so"
    )
    bound = bind({"label": np.array([0, 9, 3])}, fields, {"label": 10})
    assert [batch["label"].tolist() for batch, _ in bound.evaluation_batches()] == [[0, 9], [3, 3]]
