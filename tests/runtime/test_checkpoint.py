"""Checkpoint and parameter files: written atomically, read back bit for bit, and refused if damaged."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime import (
    Checkpoint,
    Manifest,
    find_checkpoint,
    load_checkpoint,
    load_parameters,
    open_bundle,
    save_checkpoint,
    save_parameters,
)
from sonew_compiled.runtime.checkpoint import latest, prune, signature
from sonew_compiled.runtime.manifest import TensorSpec
from sonew_compiled.runtime.tensorfile import read_metadata, read_tensors, write_tensors


@pytest.fixture(scope="session")
def manifest(tiny_bundle: Path) -> Manifest:
    return open_bundle(tiny_bundle).manifest


def checkpoint(step: int = 12) -> Checkpoint:
    rng = np.random.default_rng(step)
    return Checkpoint(
        step=step,
        tensors={
            "params/w": rng.standard_normal((4, 4), np.float32),
            "params/b": rng.standard_normal(4).astype(ml_dtypes.bfloat16),
            "optimizer/0/w": rng.standard_normal((4, 4), np.float32),
            "optimizer/count": np.array(step, np.int32),
        },
        settings={"seed": "3", "learning_rate": "0.1"},
    )


def test_a_checkpoint_comes_back_bit_for_bit(manifest: Manifest, tmp_path: Path) -> None:
    saved = checkpoint()
    path = save_checkpoint(tmp_path / "run", saved, manifest)
    assert path == tmp_path / "run" / "step-00000012.safetensors"
    assert list(path.parent.iterdir()) == [path]
    loaded = load_checkpoint(path, manifest)
    assert loaded.step == 12
    assert loaded.settings["seed"] == "3"
    for name, array in saved.tensors.items():
        assert loaded.tensors[name].dtype == array.dtype
        assert loaded.tensors[name].tobytes() == array.tobytes()
        assert loaded.tensors[name].shape == array.shape


def test_the_header_says_what_it_is(manifest: Manifest, tmp_path: Path) -> None:
    metadata = read_metadata(save_checkpoint(tmp_path, checkpoint(), manifest))
    assert metadata["format_version"] == "1"
    assert (metadata["step"], metadata["model"], metadata["optimizer"]) == ("12", "tiny", "momentum")
    assert metadata["signature"] == signature(manifest)


def test_equal_states_give_equal_files(manifest: Manifest, tmp_path: Path) -> None:
    first = save_checkpoint(tmp_path / "a", checkpoint(), manifest)
    second = save_checkpoint(tmp_path / "b", checkpoint(), manifest)
    assert first.read_bytes() == second.read_bytes()


def test_other_programs_can_read_it(manifest: Manifest, tmp_path: Path) -> None:
    saved = checkpoint()
    path = save_checkpoint(tmp_path, saved, manifest)
    with safetensors.safe_open(path, framework="np") as stream:
        assert set(stream.keys()) == saved.tensors.keys()
        assert json.loads(stream.metadata()["sonew"])["step"] == "12"
        np.testing.assert_array_equal(stream.get_tensor("params/w"), saved.tensors["params/w"])


def test_every_dtype_and_shape_round_trips(tmp_path: Path) -> None:
    dtypes = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
    dtypes += [np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32, np.uint16, np.uint8, np.bool_]
    tensors = {f"{np.dtype(dtype)}": np.arange(3).astype(dtype) for dtype in dtypes}
    tensors |= {"scalar": np.array(1.5), "none": np.zeros((0, 4), np.float32), "turned": np.arange(6.0).reshape(2, 3).T}
    path = tmp_path / "t.safetensors"
    write_tensors(path, tensors)
    loaded = read_tensors(path)
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_missing_files_are_refused(manifest: Manifest, tmp_path: Path, refusal: Callable[..., str]) -> None:
    for path in (tmp_path / "step-00000001.safetensors", tmp_path / "no" / "run"):
        assert str(path) in refusal(UsageError, lambda path=path: load_checkpoint(path, manifest))
    assert "no checkpoint (step-*.safetensors)" in refusal(UsageError, lambda: load_checkpoint(tmp_path, manifest))


def test_truncated_files_are_refused(manifest: Manifest, tmp_path: Path, refusal: Callable[..., str]) -> None:
    path = save_checkpoint(tmp_path, checkpoint(), manifest)
    content = path.read_bytes()
    for length in (0, 5, 8, 100, len(content) - 100, len(content) - 1):
        path.write_bytes(content[:length])
        message = refusal(SonewError, lambda: load_checkpoint(path, manifest))
        assert str(path) in message
        assert "truncated" in message


def test_corrupt_files_are_refused(manifest: Manifest, tmp_path: Path, refusal: Callable[..., str]) -> None:
    path = save_checkpoint(tmp_path, checkpoint(), manifest)
    content = path.read_bytes()
    damaged = {
        "corrupt": content[:-20] + bytes([content[-20] ^ 4]) + content[-19:],
        "not a whole": b"\xff" * 8 + content[8:],
        "is truncated or corrupt": content[:8] + b"[" + content[9:],
        "not a whole safetensors file": b"PK\x03\x04 a zip file, say, and not a short one at all",
    }
    for said, changed in damaged.items():
        path.write_bytes(changed)
        assert said in refusal(SonewError, lambda: load_checkpoint(path, manifest))


def test_damage_anywhere_is_noticed(manifest: Manifest, tmp_path: Path, refusal: Callable[..., str]) -> None:
    path = save_checkpoint(tmp_path, checkpoint(), manifest)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(content), 200):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ (1 << rng.integers(8))]) + content[position + 1 :]
        )
        assert str(path) in refusal(SonewError, lambda: load_checkpoint(path, manifest))


def test_other_safetensors_files_are_no_checkpoints(
    manifest: Manifest, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, path)
    assert "not a checkpoint" in refusal(SonewError, lambda: load_checkpoint(path, manifest))


def test_newer_formats_are_refused(manifest: Manifest, tmp_path: Path, refusal: Callable[..., str]) -> None:
    path = save_checkpoint(tmp_path, checkpoint(), manifest)
    tensors = read_tensors(path)
    write_tensors(path, tensors, {**read_metadata(path), "format_version": "2"})
    message = refusal(SonewError, lambda: load_checkpoint(path, manifest))
    assert "version 2" in message
    assert "upgrade sonew-compiled" in message


def test_other_models_are_refused_by_their_first_difference(
    manifest: Manifest, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    path = save_checkpoint(tmp_path, checkpoint(), manifest)

    def said(**changes: object) -> str:
        return refusal(SonewError, lambda: load_checkpoint(path, dataclasses.replace(manifest, **changes)))

    def with_state(*specs: TensorSpec) -> dict[str, object]:
        init = dataclasses.replace(manifest.functions["init"], outputs=specs)
        return {"functions": {**manifest.functions, "init": init}}

    w, b, m, n = manifest.state
    assert "model 'tiny', the bundle has 'huge'" in said(model="huge")
    assert "optimizer 'momentum', the bundle has 'adam'" in said(optimizer={"name": "adam"})
    assert "it lacks 'params/w2'" in said(**with_state(w, b, m, n, dataclasses.replace(w, name="params/w2")))
    assert "'params/w' has shape [4, 4] where the bundle has [4, 5]" in said(
        **with_state(dataclasses.replace(w, shape=(4, 5)), b, m, n)
    )
    assert "'params/b' has dtype bfloat16 where the bundle has float32" in said(
        **with_state(w, dataclasses.replace(b, dtype="float32"), m, n)
    )
    assert "the bundle has no 'optimizer/count'" in said(**with_state(w, b, m))
    # The user may choose other numeric settings of the same optimizer.
    other = dataclasses.replace(manifest, optimizer={"name": "momentum", "b1": 0.5})
    assert load_checkpoint(path, other).step == 12


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["params/w", "params/b", "optimizer/0/w"])
def test_values_that_are_not_finite_are_never_saved(
    manifest: Manifest, tmp_path: Path, name: str, value: float, refusal: Callable[..., str]
) -> None:
    bad = checkpoint()
    bad.tensors[name].reshape(-1)[-1] = value
    assert repr(name) in refusal(SonewError, lambda: save_checkpoint(tmp_path, bad, manifest))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("room", [0, 100, 600])
def test_a_full_disk_leaves_the_last_good_one(
    manifest: Manifest, tmp_path: Path, room: int, refusal: Callable[..., str], full_disk: Callable[..., Any]
) -> None:
    good = save_checkpoint(tmp_path, checkpoint(12), manifest)
    content = good.read_bytes()
    assert len(content) > 600
    for step in (12, 13):  # in place of the old one, and beside it
        with full_disk(after=room):
            message = refusal(SonewError, lambda step=step: save_checkpoint(tmp_path, checkpoint(step), manifest))
        assert "cannot be written" in message
        assert list(tmp_path.iterdir()) == [good]
        assert good.read_bytes() == content


def test_a_directory_that_cannot_be_made_is_refused(
    manifest: Manifest, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(
        SonewError, lambda: save_checkpoint(tmp_path / "file" / "run", checkpoint(), manifest)
    )


def test_a_killed_process_leaves_the_last_good_one(manifest: Manifest, tmp_path: Path) -> None:
    good = save_checkpoint(tmp_path, checkpoint(12), manifest)
    content = good.read_bytes()
    # The process dies while it writes: the size limit's signal ends it, which Python would ignore.
    script = f"""
import resource, signal, numpy as np
from pathlib import Path
from typing import Any
from sonew_compiled.runtime.tensorfile import write_tensors
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
write_tensors(Path({str(good)!r}), {{"a": np.zeros(10000)}})
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode < 0
    assert good.read_bytes() == content
    assert latest(tmp_path) == good
    assert len(list(tmp_path.iterdir())) == 2
    prune(tmp_path, keep=1)
    assert list(tmp_path.iterdir()) == [good]


def test_prune_keeps_the_latest(manifest: Manifest, tmp_path: Path) -> None:
    for step in (5, 100, 20, 123456789):
        save_checkpoint(tmp_path, checkpoint(step), manifest)
    (tmp_path / "step-1.safetensors").write_text("the user's own")
    prune(tmp_path, keep=2)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"step-00000100.safetensors", "step-123456789.safetensors", "step-1.safetensors"}
    assert latest(tmp_path) == tmp_path / "step-123456789.safetensors"
    assert find_checkpoint(tmp_path) == latest(tmp_path)
    assert find_checkpoint(tmp_path / "step-1.safetensors").name == "step-1.safetensors"


def test_parameters_round_trip(manifest: Manifest, tmp_path: Path) -> None:
    given = {name: array for name, array in checkpoint().tensors.items() if name.startswith("params/")}
    path = tmp_path / "params.safetensors"
    save_parameters(path, given)
    loaded = load_parameters(path, manifest.parameters)
    assert loaded.keys() == given.keys()
    assert all(loaded[name].tobytes() == given[name].tobytes() for name in given)


def test_parameters_come_out_of_a_checkpoint_and_of_other_files(manifest: Manifest, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(), manifest)
    assert load_parameters(path, manifest.parameters).keys() == {"params/w", "params/b"}
    other = tmp_path / "other.safetensors"
    tensors = {name: array for name, array in checkpoint().tensors.items() if name.startswith("params/")}
    safetensors.numpy.save_file(tensors, other)
    assert load_parameters(other, manifest.parameters).keys() == {"params/w", "params/b"}


def test_wrong_parameters_are_refused(manifest: Manifest, tmp_path: Path, refusal: Callable[..., str]) -> None:
    path = tmp_path / "params.safetensors"

    def said() -> str:
        return refusal(SonewError, lambda: load_parameters(path, manifest.parameters))

    assert "no file" in refusal(UsageError, lambda: load_parameters(path, manifest.parameters))
    save_parameters(path, {"weights": np.zeros(3)})
    assert "it lacks 'params/w'" in said()
    save_parameters(path, {"params/w": np.zeros((4, 4))})
    assert "dtype float64" in said()
    path.write_bytes(b"nothing of the kind")
    assert "not a whole safetensors file" in said()
    path.unlink()
    path.mkdir()
    assert "cannot be read" in said()
