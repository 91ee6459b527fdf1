"""Data sets: the embedded one, and the user's own files, valid and invalid."""

import gzip
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.data import Dataset, load_dataset

IMAGES = np.random.default_rng(0).integers(0, 256, (25, 4, 5), dtype=np.uint8)
LABELS = np.arange(25, dtype=np.int64) % 10


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def refusal(kind: type[SonewError], name: object) -> str:
    """The one line with which a data set is refused."""
    with pytest.raises(kind) as caught:
        load_dataset(str(name))
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_same(fields: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert fields.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(fields[name], array, strict=True)


def test_the_embedded_digits() -> None:
    data = load_dataset("mnist-10k")
    assert data.name == "mnist-10k"
    assert data.train["image"].shape == (9000, 28, 28)
    assert data.test["image"].shape == (1000, 28, 28)
    assert data.train["image"].dtype == data.test["image"].dtype == np.uint8
    assert data.train["label"].dtype == data.test["label"].dtype == np.int32
    # The first labels of the test file of MNIST, and the last.
    assert data.train["label"][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert data.test["label"][-5:].tolist() == [2, 3, 4, 5, 6]
    assert np.bincount(np.concatenate([data.train["label"], data.test["label"]])).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]
    assert not data.train["image"].flags.writeable
    assert not data.train["label"].flags.writeable
    assert re.fullmatch("[0-9a-f]{64}", data.fingerprint)
    assert load_dataset("mnist-10k").fingerprint == data.fingerprint


def test_npy_is_images_with_the_last_tenth_held_out(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    data = load_dataset(str(tmp_path / "a.npy"))
    assert_same(data.train, {"image": IMAGES[:23]})
    assert_same(data.test, {"image": IMAGES[23:]})


@pytest.mark.parametrize(
    ("arrays", "fields"),
    [
        ({"image": IMAGES, "label": LABELS}, {"image": IMAGES, "label": LABELS}),
        ({"train_tokens": LABELS, "train_about": IMAGES}, {"tokens": LABELS, "about": IMAGES}),
        ({"x_train": IMAGES, "y_train": LABELS}, {"image": IMAGES, "label": LABELS}),
        ({"x_train": IMAGES, "y_train": LABELS / 7}, {"image": IMAGES, "target": LABELS / 7}),
    ],
)
def test_a_file_without_test_examples_says_what_is_held_out(
    tmp_path: Path, arrays: dict[str, np.ndarray], fields: dict[str, np.ndarray]
) -> None:
    path = save(tmp_path / "a.npz", **arrays)
    data = load_dataset(str(path))
    assert_same(data.train, {name: array[:23] for name, array in fields.items()})
    assert_same(data.test, {name: array[23:] for name, array in fields.items()})
    assert data.note == f"{path} has no test examples of its own: the last 2 of its 25 examples are held out"


@pytest.mark.parametrize(
    ("image", "is_said"),
    [
        (IMAGES.astype(np.float32), True),
        (IMAGES.astype(np.float64), True),
        (IMAGES, False),
        (IMAGES.astype(np.float32) / 255, False),
        (IMAGES.astype(np.float32) - 128, False),
        ((IMAGES > 100).astype(np.float32), False),
    ],
)
def test_bytes_that_were_saved_as_floats_are_noticed(image: np.ndarray, is_said: bool) -> None:
    """Full MNIST as float32 of 0 to 255 trained to losses that meant nothing."""
    notes = Dataset.from_arrays({"image": image}, {"image": image}, name="mine").notes
    expected = (
        f"mine: `image` holds whole numbers up to {image.max():g} as {image.dtype}, which are taken as they are; "
        "uint8 would be divided by 255"
    )
    assert notes == ((expected,) if is_said else ())
    assert Dataset.from_arrays({"pixels": image}, {"pixels": image}).notes == ()


def test_a_data_set_of_arrays() -> None:
    given = {"tokens": LABELS, "about": IMAGES}
    data = Dataset.from_arrays(given)
    assert_same(data.train, {name: array[:23] for name, array in given.items()})
    assert repr(data) == ("Dataset(arrays: tokens int64[], about uint8[4, 5]; 23 examples to train on, 2 to test on)")
    split = Dataset.from_arrays({"x": IMAGES[:20]}, {"x": IMAGES[20:]}, name="mine")
    assert_same(split.test, {"x": IMAGES[20:]})
    assert (split.name, split.note) == ("mine", "")
    again = Dataset.from_arrays({"x": IMAGES[:20].copy()}, {"x": IMAGES[20:]})
    assert again.fingerprint == split.fingerprint != Dataset.from_arrays({"x": IMAGES}).fingerprint
    wrong: tuple[tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None, str], ...] = (
        ({}, None, "no fields"),
        ({"x": IMAGES}, {"y": IMAGES}, "x, y in only one"),
        ({"x": np.array([1.0, np.nan])}, None, "arrays: `x` holds nan in example 1"),
        ({"x": IMAGES, "y": LABELS[1:]}, None, "different lengths"),
    )
    for train, test, said in wrong:
        with pytest.raises(UsageError, match=said):
            Dataset.from_arrays(train, test)


def test_at_least_one_example_is_held_out(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES[:2])
    data = load_dataset(str(tmp_path / "a.npy"))
    assert (len(data.train["image"]), len(data.test["image"])) == (1, 1)


def test_npz_with_plain_names(tmp_path: Path) -> None:
    data = load_dataset(str(save(tmp_path / "a.npz", image=IMAGES, label=LABELS)))
    assert_same(data.train, {"image": IMAGES[:23], "label": LABELS[:23]})
    assert_same(data.test, {"image": IMAGES[23:], "label": LABELS[23:]})


def test_npz_with_train_and_test_names(tmp_path: Path) -> None:
    arrays = {"train_image": IMAGES, "test_image": IMAGES[:1], "train_test_x": LABELS, "test_test_x": LABELS[:1]}
    data = load_dataset(str(save(tmp_path / "a.npz", **arrays)))
    assert_same(data.train, {"image": IMAGES, "test_x": LABELS})
    assert_same(data.test, {"image": IMAGES[:1], "test_x": LABELS[:1]})


def test_npz_with_keras_names(tmp_path: Path) -> None:
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:3], "y_test": LABELS[:3]}
    data = load_dataset(str(save(tmp_path / "a.npz", **arrays)))
    assert_same(data.train, {"image": IMAGES, "label": LABELS})
    assert_same(data.test, {"image": IMAGES[:3], "label": LABELS[:3]})
    data = load_dataset(str(save(tmp_path / "b.npz", x_train=IMAGES, x_test=IMAGES[:3])))
    assert_same(data.test, {"image": IMAGES[:3]})


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_images(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"mine-idx3-ubyte{'' if pack is bytes else '.gz'}"
    path.write_bytes(pack(idx(IMAGES)))
    data = load_dataset(str(path))
    assert_same(data.train, {"image": IMAGES[:23]})
    assert_same(data.test, {"image": IMAGES[23:]})


def test_the_fingerprint_is_of_the_contents(tmp_path: Path) -> None:
    def load(name: str, content: bytes) -> Dataset:
        (tmp_path / name).write_bytes(content)
        return load_dataset(str(tmp_path / name))

    plain = load("a-idx3-ubyte", idx(IMAGES))
    assert load("b-idx3-ubyte.gz", gzip.compress(idx(IMAGES))).fingerprint == plain.fingerprint
    assert load("c-idx3-ubyte", idx(IMAGES[::-1])).fingerprint != plain.fingerprint


def test_arrays_come_out_native_and_contiguous(tmp_path: Path) -> None:
    values = np.arange(20, dtype=">f4").reshape(5, 4)
    np.save(tmp_path / "a.npy", np.asfortranarray(values))
    train = load_dataset(str(tmp_path / "a.npy")).train["image"]
    assert train.dtype == np.float32
    assert train.dtype.isnative
    assert train.flags.c_contiguous
    np.testing.assert_array_equal(train, values[:4])


@pytest.mark.parametrize("name", ["mnist-20k", "MNIST", "", "no/such/file"])
def test_an_unknown_name_lists_what_is_accepted(name: str) -> None:
    message = refusal(UsageError, name)
    assert f"`{name}`" in message
    for accepted in ("mnist-10k", "mnist (", ".npy", ".npz", "idx3-ubyte"):
        assert accepted in message


def test_a_missing_file(tmp_path: Path) -> None:
    assert "there is no file" in refusal(UsageError, tmp_path / "a.npy")


def test_a_name_that_is_too_long() -> None:
    assert "too long" in refusal(SonewError, "a" * 5000)


def test_a_folder_is_told_of_data_dir(tmp_path: Path) -> None:
    assert f"--data mnist --data-dir {tmp_path}" in refusal(UsageError, tmp_path)


def test_another_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    assert ".npz" in refusal(UsageError, tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"image": np.array([[1.0], [np.nan], [2.0]])}, "holds nan in example 1"),
        ({"image": np.array([[1.0], [2.0], [-np.inf]])}, "holds -inf in example 2"),
        ({"image": IMAGES, "label": LABELS.astype(np.float32)}, "needs an integer dtype"),
        ({"image": IMAGES, "label": LABELS[1:]}, "image 25, label 24"),
        ({"image": IMAGES[:1]}, "1 example; it needs at least 2"),
        ({"image": IMAGES[:0]}, "0 examples; it needs at least 2"),
        ({"image": np.array(3.0)}, "single value"),
        ({"image": IMAGES.astype(np.complex64)}, "dtype complex64"),
        ({"image": np.array(["a", "b"])}, "dtype <U1"),
        ({"image": IMAGES, "label": LABELS > 3}, "dtype bool"),
        ({"train_image": IMAGES, "test_image": IMAGES, "label": LABELS}, "holds train_image, test_image, label"),
        ({"train_image": IMAGES, "test_label": LABELS}, "has image, label in only one"),
        ({"train_": IMAGES, "test_": IMAGES}, "accepted are train_<field>"),
        ({"test_image": IMAGES}, "holds test_image; accepted are"),
        ({"x_train": IMAGES, "x_test": IMAGES, "y_test": LABELS}, "has label in only one"),
        ({"train_image": IMAGES, "test_image": IMAGES[:0]}, "test part, has 0 examples"),
        ({"train_image": IMAGES, "test_image": IMAGES[:, :2]}, "they must be the same"),
        ({"train_image": IMAGES, "test_image": IMAGES.astype(np.float32)}, "they must be the same"),
        ({"y_train": LABELS, "x_test": IMAGES}, "holds y_train, x_test"),
        ({"x_train": IMAGES, "y_train": LABELS / 2, "x_test": IMAGES, "y_test": LABELS}, "must be the same"),
        ({}, "holds no arrays"),
    ],
)
def test_arrays_that_cannot_be_trained_on(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    path = save(tmp_path / "a.npz", **arrays)
    message = refusal(UsageError, path)
    assert said in message
    assert str(path) in message


def test_a_value_that_is_not_finite_is_found_beyond_the_first_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sonew_compiled.runtime.data.dataset._CHUNK_ELEMENTS", 6)
    values = np.zeros((9, 3), np.float32)
    values[7, 1] = np.inf
    np.save(tmp_path / "a.npy", values)
    assert "holds inf in example 7" in refusal(UsageError, tmp_path / "a.npy")


def test_python_objects_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    message = refusal(SonewError, tmp_path / "a.npy")
    assert "Python objects" in message
    assert "allow_pickle" not in message


def test_numpy_files_under_each_others_names(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    (tmp_path / "a.npy").rename(tmp_path / "b.npz")
    assert "rename it to end in .npy" in refusal(UsageError, tmp_path / "b.npz")
    save(tmp_path / "c.npz", image=IMAGES).rename(tmp_path / "d.npy")
    assert "rename it to end in .npz" in refusal(UsageError, tmp_path / "d.npy")


def test_an_archive_of_other_things(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert "notes.txt, which is not an array" in refusal(SonewError, tmp_path / "a.npz")


def test_names_in_an_archive_are_shown_on_one_line(tmp_path: Path) -> None:
    odd = "a\x1b[2J\n" + 10_000 * "x"
    for names in ([f"train_{odd}", "test_b"], [f"train_{odd}{n}" for n in range(20)] + ["label"]):
        save(tmp_path / "a.npz", **dict.fromkeys(names, IMAGES))
        message = refusal(UsageError, tmp_path / "a.npz")
        assert message.isprintable()
        assert len(message) < 1000


def test_a_few_bytes_that_unpack_to_many(tmp_path: Path) -> None:
    """No more of them than the header asks for, and no header that asks for more than there is."""
    path = tmp_path / "a-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(IMAGES) + bytes(100 << 20)))
    tracemalloc.start()
    assert "its header asks for" in refusal(SonewError, path)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
    path.write_bytes(gzip.compress(b"\0\0\x08\x03" + 3 * b"\xff\xff\xff\xff" + bytes(1 << 20)))
    assert "more memory than there is" in refusal(SonewError, path)


@pytest.mark.parametrize("extension", ["npy", "npz"])
@pytest.mark.parametrize("kept", [0, 1, 40, 127, 200, -1])
def test_truncated_numpy_files(tmp_path: Path, extension: str, kept: int) -> None:
    path = tmp_path / f"a.{extension}"
    if extension == "npy":
        np.save(path, IMAGES)
    else:
        save(path, image=IMAGES)
    path.write_bytes(path.read_bytes()[:kept])
    assert "truncated or corrupt" in refusal(SonewError, path)


def test_a_damaged_header_on_which_numpy_fails_in_its_own_way(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"}", b" ", 1))
    assert "truncated or corrupt" in refusal(SonewError, tmp_path / "a.npy")


# Python 3.13 would put in the time, which would be part of a test's name and differ between workers.
PACKED = gzip.compress(idx(IMAGES), mtime=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "starts with nothing"),
        (b"PNG\0\0\0", "starts with 504e4700"),
        (idx(IMAGES).replace(b"\0\0\x08", b"\0\0\x0d", 1), "IDX dtype 0x0d"),
        (idx(LABELS.astype(np.uint8)), "1 dimension where 3"),
        (idx(IMAGES)[:10], "truncated: 10 bytes"),
        (idx(IMAGES)[:-1], "has 515 bytes; its header asks for 516, shape (25, 4, 5)"),
        (idx(IMAGES) + b"\0", "has 517 bytes"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "truncated or corrupt"),
        (PACKED[:-9], "corrupt gzip"),
        (PACKED[:-8] + bytes(8), "corrupt gzip"),
        (PACKED[:20] + bytes(40), "corrupt gzip"),
    ],
)
def test_damaged_idx_files(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a-idx3-ubyte"
    path.write_bytes(content)
    message = refusal(SonewError, path)
    assert said in message
    assert message.endswith("save or copy it again")
