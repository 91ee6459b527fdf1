"""Weights in files: of every kind, under both kinds of names, rounded to what a bundle stores, and refused if wrong."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from sonew_compiled.contract import Role
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime import (
    Checkpoint,
    Device,
    Manifest,
    Program,
    TrainingState,
    bind,
    load_parameters,
    load_trained,
    load_weights,
    open_bundle,
    predict,
    save_checkpoint,
    save_parameters,
)
from sonew_compiled.runtime.manifest import TensorSpec
from sonew_compiled.runtime.weights import own_names, read_weights

W = np.arange(16, dtype=np.float32).reshape(4, 4) / 7
B = np.array([0.5, -2, 3, 1 / 3]).astype(ml_dtypes.bfloat16)
FULL = {"params/w": W, "params/b": B}


@pytest.fixture(scope="session")
def manifest(tiny_bundle: Path) -> Manifest:
    return open_bundle(tiny_bundle).manifest


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("root", ["params/", ""])
def test_a_file_of_either_kind_and_either_naming_is_read(
    manifest: Manifest, tmp_path: Path, suffix: str, root: str
) -> None:
    path = str(tmp_path / f"weights{suffix}")
    save_parameters(path, {f"{root}w": W, f"{root}b": B})
    loaded = load_weights(path, manifest)
    assert {name: (array.dtype, array.tobytes()) for name, array in loaded.items()} == {
        name: (array.dtype, array.tobytes()) for name, array in FULL.items()
    }
    first = Path(path).read_bytes()
    save_parameters(path, {f"{root}w": W, f"{root}b": B})
    assert Path(path).read_bytes() == first, "equal weights make equal files"


def test_a_numpy_file_of_the_user_is_read_and_rounded(manifest: Manifest, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", w=W.astype(np.float16), b=np.array([1 / 3, 1, 2, 3], np.float32))
    loaded = load_parameters(tmp_path / "mine.npz", manifest.parameters)
    np.testing.assert_array_equal(loaded["params/w"], W.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(
        loaded["params/b"].astype(float), [0.333984375, 1, 2, 3]
    )  # a third in bfloat16's 8 bits


def test_a_checkpoint_and_a_run_s_folder_are_read(manifest: Manifest, tmp_path: Path) -> None:
    state = {**FULL, "optimizer/0/w": W, "optimizer/count": np.array(3, np.int32)}
    path = save_checkpoint(tmp_path, Checkpoint(step=3, tensors=state, settings={}), manifest)
    for given in (path, tmp_path):
        assert load_weights(given, manifest).keys() == FULL.keys()


def test_what_does_not_fit_is_refused(manifest: Manifest, tmp_path: Path, refusal: Callable[..., str]) -> None:
    path = tmp_path / "mine.npz"

    def said(**arrays: np.ndarray) -> str:
        np.savez(path, **arrays)
        return refusal(SonewError, lambda: load_weights(path, manifest))

    assert "'w' has shape [2, 8] where the bundle has [4, 4]" in said(w=W.reshape(2, 8), b=B.astype(np.float32))
    assert "it lacks 'b'" in said(w=W)
    assert "the bundle has no 'c'" in said(w=W, b=B.astype(np.float32), c=W)
    assert "'w' has dtype float64 where the bundle has float32" in said(w=W.astype(float), b=B.astype(np.float32))
    assert "NaN or infinity in 'w'" in said(w=W * np.nan, b=B.astype(np.float32))
    assert "too large for bfloat16" in said(w=W, b=np.array([3.4e38, 0, 0, 0], np.float32))
    assert "it lacks 'params/w'" in said(other=W)
    path.write_bytes(b"PK\x03\x04 nothing")
    assert "truncated or corrupt" in refusal(SonewError, lambda: load_weights(path, manifest))
    np.save(tmp_path / "one.npy", W)
    (tmp_path / "one.npy").rename(path)
    assert "save the weights by name" in refusal(SonewError, lambda: load_weights(path, manifest))
    path.unlink()
    assert "check the name" in refusal(UsageError, lambda: load_weights(path, manifest))


def _spec(name: str, role: Role, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype="float32", role=role)


def test_the_state_of_a_model_comes_along_or_is_left_out(tmp_path: Path, refusal: Callable[..., str]) -> None:
    specs = [
        _spec("params/w", Role.PARAMETER, 2),
        _spec("state/n", Role.MODEL_STATE),
        _spec("state/m", Role.MODEL_STATE),
    ]
    path = tmp_path / "w.safetensors"
    one, two = np.ones(2, np.float32), np.float32(2)
    for root in ("params/", ""):
        save_parameters(path, {f"{root}w": one, "state/n": two, "state/m": two})
        assert read_weights(path, specs).keys() == {"params/w", "state/n", "state/m"}
        save_parameters(path, {f"{root}w": one})
        assert read_weights(path, specs).keys() == {"params/w"}
        save_parameters(path, {f"{root}w": one, "state/m": two})
        assert "it lacks 'state/n'" in refusal(SonewError, lambda: read_weights(path, specs))


def test_two_tensors_never_share_a_name(tmp_path: Path) -> None:
    specs = [_spec("params/state/m", Role.PARAMETER), _spec("state/m", Role.MODEL_STATE)]
    names = own_names(specs)
    assert names == {"params/state/m": "params/state/m", "state/m": "state/m"}
    save_parameters(tmp_path / "w.npz", {names[spec.name]: np.float32(i) for i, spec in enumerate(specs)})
    assert read_weights(tmp_path / "w.npz", specs) == {"params/state/m": 0, "state/m": 1}
    # A tree that is called `params` itself, as flax's variables are.
    nested = [_spec("params/params/w", Role.PARAMETER)]
    save_parameters(tmp_path / "w.npz", {own_names(nested)["params/params/w"]: np.float32(3)})
    assert read_weights(tmp_path / "w.npz", nested) == {"params/params/w": 3}


def test_copies_of_parameters_start_as_the_given_ones(
    tiny_bundle: Path, cpu: Device, refusal: Callable[..., str]
) -> None:
    bundle = open_bundle(tiny_bundle)

    def started(source: str) -> dict[str, np.ndarray]:
        manifest = dataclasses.replace(bundle.manifest, starts_from={"optimizer/0/w": source})
        program = Program.load(dataclasses.replace(bundle, manifest=manifest, is_trusted=True), cpu)
        return TrainingState.initial(program, seed=0, parameters=FULL).download()

    state = started("params/w")
    np.testing.assert_array_equal(state["optimizer/0/w"], W)
    assert state["optimizer/count"] == 0
    message = refusal(UsageError, lambda: started(""))
    assert "optimizer/0/w of the optimizer's first state is computed from those of `init`" in message


def test_predictions_for_any_number_of_rows(
    tiny_bundle: Path, cpu: Device, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    save_parameters(tmp_path / "w.npz", {"w": W, "b": B})
    bundle = open_bundle(tiny_bundle)
    program = Program.load(bundle, cpu)
    trained = load_trained(bundle, tmp_path / "w.npz")
    assert repr(trained) == f"Trained(2 tensors of {tmp_path}/w.npz, step=None)"
    buffers = trained.upload(program)
    pixels = np.random.default_rng(0).integers(0, 256, (19, 2, 2), np.uint8)
    expected = pixels.reshape(19, 4) / 255 @ W.astype(float) + B.astype(float)
    for count in (19, 16, 8, 1, 0):
        made = predict(program, buffers, {"image": pixels[:count]})
        assert isinstance(made, np.ndarray)
        assert (made.shape, made.dtype) == ((count, 4), np.float32)
        np.testing.assert_allclose(made, expected[:count], rtol=1e-5)
    bound = bind({"image": pixels}, bundle.manifest.batch)
    np.testing.assert_array_equal(predict(program, buffers, bound), predict(program, buffers, {"image": pixels}))
    assert "no field image" in refusal(UsageError, lambda: predict(program, buffers, {"label": pixels}))
    assert "give --checkpoint" in refusal(UsageError, lambda: load_trained(bundle))
