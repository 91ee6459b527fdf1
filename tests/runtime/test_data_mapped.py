"""Data larger than memory: mapped, read example by example, and checked as it is taken."""

import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sonew_compiled.compile import compile_training
from sonew_compiled.contract import Role
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import BoundData, bind, load_dataset
from sonew_compiled.runtime.data import stored
from sonew_compiled.runtime.data.mapped import is_mapped, write_folder
from sonew_compiled.runtime.data.stored import open_stored
from sonew_compiled.runtime.manifest import TensorSpec

BATCH = (
    TensorSpec(name="image", shape=(4, 6), dtype="float32", role=Role.BATCH),
    TensorSpec(name="label", shape=(4,), dtype="int32", role=Role.BATCH),
)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    arrays = {
        f"{part}_{field}": values
        for part, count in (("train", 23), ("test", 9))
        for field, values in (
            ("image", rng.integers(0, 256, (count, 2, 3), np.uint8)),
            ("label", rng.integers(0, 10, count, np.int64)),
        )
    }
    np.savez(path, **arrays)
    return path


@pytest.fixture
def folder(archive: Path, tmp_path: Path) -> Path:
    assert write_folder(tmp_path / "folder", load_dataset(str(archive))) > 0
    return tmp_path / "folder"


def test_a_folder_gives_the_batches_of_the_archive_that_it_was_packed_from(archive: Path, folder: Path) -> None:
    read, mapped = load_dataset(str(archive)), load_dataset(str(folder))
    assert is_mapped(mapped.train["image"])
    for one, other in ((read.train, mapped.train), (read.test, mapped.test)):
        first, second = bind(one, BATCH, {"label": 10}), bind(other, BATCH, {"label": 10})
        for step in (0, 1, 5):
            for name, array in first.training_batch(3, step).items():
                np.testing.assert_array_equal(second.training_batch(3, step)[name], array, strict=True)
        for (batch, valid), (again, count) in zip(first.evaluation_batches(), second.evaluation_batches(), strict=True):
            assert valid == count
            np.testing.assert_array_equal(again["image"], batch["image"], strict=True)


def test_plain_names_have_a_tenth_held_out(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.arange(60, dtype=np.float32).reshape(30, 2))
    dataset = load_dataset(str(tmp_path))
    assert (len(dataset.train["image"]), len(dataset.test["image"])) == (27, 3)
    assert is_mapped(dataset.test["image"])


def test_the_fingerprint_follows_the_contents(folder: Path) -> None:
    before = load_dataset(str(folder)).fingerprint
    assert load_dataset(str(folder)).fingerprint == before
    labels = np.load(folder / "train_label.npy")
    labels[-1] += 1
    np.save(folder / "train_label.npy", labels)
    assert load_dataset(str(folder)).fingerprint != before


def test_values_are_checked_as_they_are_taken(tmp_path: Path) -> None:
    images, labels = np.zeros((8, 6), np.float32), np.arange(8)
    np.save(tmp_path / "train_image.npy", images)
    np.save(tmp_path / "train_label.npy", labels)
    np.save(tmp_path / "test_label.npy", labels)
    images[5, 2] = np.inf
    np.save(tmp_path / "test_image.npy", images)
    dataset = load_dataset(str(tmp_path))

    def taken(data: BoundData) -> None:
        list(data.evaluation_batches())

    taken(bind(dataset.train, BATCH, {"label": 8}))
    with pytest.raises(UsageError, match="the data's `label` has labels from 4 to 7; the model has 7 classes"):
        taken(bind(dataset.train, BATCH, {"label": 7}))
    with pytest.raises(UsageError, match="the data's `image` holds NaN or infinity in a batch"):
        taken(bind(dataset.test, BATCH))


def test_what_cannot_be_mapped_is_refused(tmp_path: Path) -> None:
    for name, content in (("order", np.asfortranarray(np.zeros((3, 4)))), ("bytes", np.zeros((3, 4), ">f4"))):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "image.npy", content)
        with pytest.raises(SonewError, match=r"image.npy cannot be mapped.*save it again with numpy.save"):
            load_dataset(str(tmp_path / name))
    (tmp_path / "cut").mkdir()
    np.save(tmp_path / "cut/image.npy", np.zeros((30, 4), np.float32))
    with (tmp_path / "cut/image.npy").open("r+b") as stream:
        stream.truncate(300)
    with pytest.raises(SonewError, match="cannot be mapped"):
        load_dataset(str(tmp_path / "cut"))
    with pytest.raises(UsageError, match="exists already"):
        write_folder(tmp_path / "cut", load_dataset("mnist-10k"))


def test_an_uncompressed_archive_is_mapped_if_it_is_large(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = load_dataset(str(archive))
    assert not is_mapped(read.train["image"])
    monkeypatch.setattr(stored, "MAPPED_FROM", 0)
    mapped = load_dataset(str(archive))
    for one, other in ((read.train, mapped.train), (read.test, mapped.test)):
        assert one.keys() == other.keys()
        for name, array in other.items():
            assert is_mapped(array)
            np.testing.assert_array_equal(array, one[name], strict=True)
    # The end of an archive has a checksum of each array, of which the fingerprint reads samples.
    arrays = dict(np.load(archive))
    arrays["train_label"][7] += 1
    np.savez(archive, **arrays)
    assert load_dataset(str(archive)).fingerprint != mapped.fingerprint
    for name, content in (("order", np.asfortranarray(arrays["train_image"][..., 0])), ("bytes", np.zeros(23, ">f4"))):
        other = tmp_path / f"{name}.npz"
        np.savez(other, image=content)
        assert open_stored(other) is None
    np.savez_compressed(archive, **arrays)
    assert open_stored(archive) is None
    assert open_stored(tmp_path / "nothing.npz") is None


def test_an_archive_that_is_cut_off_in_use_ends_the_run(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MAPPED_FROM", 0)
    data = bind(load_dataset(str(archive)).train, BATCH, {"label": 10})
    data.training_batch(0, 0)
    with archive.open("r+b") as stream:
        stream.truncate(200)
    with pytest.raises(SonewError, match=r"data.npz was cut off while it was in use"):
        data.training_batch(0, 1)


LIMITED = """
import resource, sys
import numpy as np
from sonew_compiled.runtime import TrainSettings, bind, load_dataset, open_bundle, open_device, train
from sonew_compiled.runtime.manifest import TensorSpec

device = open_device("local-sync")
batch = (TensorSpec(name="image", shape=(16, 65536), dtype="float32", role="batch"),)
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (64 << 20), resource.RLIM_INFINITY))
data = bind(load_dataset(sys.argv[1]).train, batch)
total = sum(float(data.training_batch(0, step)["image"][:, 0].sum()) for step in range(data.steps_per_epoch))
total_again = sum(float(taken["image"][:valid, 0].sum()) for taken, valid in data.evaluation_batches())
print(data.examples, round(total), round(total_again))
settings = TrainSettings(epochs=1, learning_rate=1e-3, schedule="constant", warmup_steps=0)
result = train(open_bundle(sys.argv[3]), load_dataset(sys.argv[1]), settings, device, output=sys.argv[4])
print(result.steps, round(result.test_loss, 4))
try:
    np.fromfile(sys.argv[2], np.uint8)
except MemoryError:
    print("too large to be read")
"""


@pytest.fixture(scope="module")
def first_pixel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that learns the first pixel of 65,536 by one weight, which starts at 0."""
    path = tmp_path_factory.mktemp("bundles") / "first-pixel"
    compile_training(
        lambda weights, batch: jnp.mean((batch["image"][:, 0] - weights["w"][0]) ** 2),
        lambda key: {"w": jnp.zeros(1)},
        optimizer_settings("sgd"),
        {"image": jax.ShapeDtypeStruct((16, 65536), jnp.float32)},
        output=path,
        targets=("vmvx",),
        model="first-pixel",
        check=False,
    )
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on a process's memory")
@pytest.mark.parametrize("is_archive", [False, True], ids=["folder", "archive"])
def test_four_times_as_much_as_memory_holds_is_trained_on(is_archive: bool, first_pixel: Path, tmp_path: Path) -> None:
    """256 MiB of examples in a process that may take 64 MiB more than it has: each is 255 in front, a sparse file.

    They are counted, and trained on for an epoch, in each of whose steps 1 - w shrinks by twice the rate.
    """
    for part, count in (("train", 4096), ("test", 16)):
        array = np.lib.format.open_memmap(tmp_path / f"{part}_image.npy", "w+", np.uint8, (count, 65536))
        array[:, 0] = 255
        array.flush()
        del array
    source, file = tmp_path, tmp_path / "train_image.npy"
    if is_archive:
        source = file = tmp_path / "data.npz"
        with zipfile.ZipFile(file, "w") as archive:
            for path in sorted(tmp_path.glob("*.npy")):
                archive.write(path, path.name)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, (source, file, first_pixel, tmp_path / "run"))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    loss = round((1 - 2e-3) ** (2 * 256), 4)
    assert done.stdout == f"4096 4096 4096\n256 {loss}\ntoo large to be read\n", done.stderr


def test_a_file_that_is_cut_off_meanwhile_is_an_error_and_no_crash(folder: Path, tmp_path: Path) -> None:
    data = bind(load_dataset(str(folder)).train, BATCH)
    path = folder / "train_image.npy"
    (tmp_path / "other.npy").write_bytes(b"short")
    whole = path.read_bytes()
    data.training_batch(0, 0)
    with path.open("r+b") as stream:
        stream.truncate(200)
    with pytest.raises(SonewError, match=r"train_image\.npy was cut off while it was in use; restore it"):
        data.training_batch(0, 1)
    path.write_bytes(whole)
    again = bind(load_dataset(str(folder)).train, BATCH)
    wanted = again.training_batch(0, 1)["image"]
    # Another file in its place is another file.
    (tmp_path / "other.npy").rename(path)
    np.testing.assert_array_equal(again.training_batch(0, 1)["image"], wanted)
