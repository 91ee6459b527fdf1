"""Weights from and to the command line: runs that start from given ones, predictions, exports."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_compiled.runtime.tensorfile import read_tensors

Run = Callable[..., Any]
ALONE = ("run", "small.bundle", "--data", "data.npz", "--epochs", 1)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is a new folder with `small.bundle` and `data.npz`."""
    shutil.copytree(small.bundle, tmp_path / "small.bundle")
    shutil.copy(small.data, tmp_path)
    monkeypatch.chdir(tmp_path)


def test_weights_go_out_and_start_another_run(sonew: Run) -> None:
    assert sonew(*ALONE, "--schedule", "constant").code == 0
    trained = read_tensors(Path("sonew-run/step-00000009.safetensors"))
    for name in ("w.npz", "w.safetensors"):
        result = sonew("export", "small.bundle", "--checkpoint", "sonew-run", "-o", name)
        assert (result.code, result.out) == (0, "")
        assert result.err == f"wrote {name}: 2 tensors of sonew-run/step-00000009.safetensors\n"
    exported = dict(np.load("w.npz"))
    assert exported.keys() == {"down", "up"} == read_tensors(Path("w.safetensors")).keys()
    for name, array in exported.items():
        assert array.tobytes() == trained[f"params/{name}"].tobytes()
    # At a rate of zero the weights stay what they were at the start.
    for number, source in enumerate(("w.npz", "w.safetensors", "sonew-run", "sonew-run/step-00000009.safetensors")):
        still = ("--learning-rate", 0, "--max-steps", 1, "--seed", 5, "-o", f"out{number}")
        assert sonew(*ALONE, "--params", source, *still).code == 0
        tensors = read_tensors(Path(f"out{number}/step-00000001.safetensors"))
        assert all(tensors[f"params/{name}"].tobytes() == array.tobytes() for name, array in exported.items())
    losses = [
        sonew("eval", "small.bundle", "--checkpoint", source, "--data", "data.npz", "--json").json
        for source in ("w.npz", "w.safetensors", "sonew-run")
    ]
    assert [row.pop("steps") for row in losses] == [None, None, 9]
    assert [row.pop("checkpoint")[:5] for row in losses] == ["w.npz", "w.saf", "sonew"]
    assert losses[0] == losses[1] == losses[2]
    both = sonew(*ALONE, "--params", "w.npz", "--resume", "sonew-run")
    assert (both.code, "--params starts a run from given weights" in both.err) == (2, True)


def test_predictions_are_those_of_the_weights(sonew: Run) -> None:
    rng = np.random.default_rng(1)
    down, up = (rng.standard_normal(shape).astype(np.float32) for shape in ((36, 5), (5, 36)))
    np.savez("w.npz", down=down, up=up)
    with np.load("data.npz") as data:
        images = [data["train_image"], data["test_image"]]
    expected = np.concatenate(images).reshape(-1, 36) / 255 @ down @ up
    line = ("predict", "small.bundle", "--checkpoint", "w.npz", "--data")
    result = sonew(*line, "data.npz", "-o", "deep/all.npz", "--json")
    assert result.code == 0, result.err
    assert result.json == {
        "output": "deep/all.npz",
        "data": "data.npz",
        "split": "all",
        "arrays": {"prediction": [205, 36]},
    }
    assert result.err == "wrote deep/all.npz: prediction [205, 36], predicted with w.npz\n"
    np.testing.assert_allclose(np.load("deep/all.npz")["prediction"], expected, rtol=1e-4, atol=1e-5)
    assert sonew(*line, "data.npz", "--split", "test").code == 0
    np.testing.assert_allclose(np.load("predictions.npz")["prediction"], expected[180:], rtol=1e-4, atol=1e-5)
    # A single example, of which nothing can be held out for testing.
    np.save("one.npy", images[0][:1])
    assert sonew(*line, "one.npy").code == 0
    np.testing.assert_allclose(np.load("predictions.npz")["prediction"], expected[:1], rtol=1e-4, atol=1e-5)
    for words, said in (
        (("-o", "out.csv"), "a name that ends in .npz"),
        (("--checkpoint", "no.npz"), "no file no.npz"),
    ):
        wrong = sonew(*line, "data.npz", *words)
        assert (wrong.code, said in wrong.err) == (2, True), wrong.err
    bare = sonew("predict", "small.bundle", "--data", "data.npz")
    assert (bare.code, "small.bundle holds no weights: give --checkpoint" in bare.err) == (2, True)


def test_weights_of_another_program_are_compiled_in(sonew: Run, small: Any) -> None:
    shutil.copy(small.path / "small_model.py", ".")
    np.savez("w.npz", down=np.ones((36, 5), np.float32), up=np.ones((5, 36), np.float32))
    made = ("compile", "--model", "small_model:model", "--batch-size", 20, "--target", "vmvx", "--no-check")
    assert sonew(*made, "-o", "given.bundle", "--params", "w.npz").code == 0
    assert sonew("export", "given.bundle", "-o", "back.npz").code == 0
    assert all((array == 1).all() for array in np.load("back.npz").values())


def test_a_bundle_for_inference_evaluates_and_predicts_alone(sonew: Run) -> None:
    assert sonew(*ALONE).code == 0
    line = ("export", "small.bundle", "--checkpoint", "sonew-run", "-o", "infer.bundle", "--target", "vmvx")
    result = sonew(*line)
    assert result.code == 0, result.err
    assert "compile for vmvx" in result.err.splitlines()[0]
    manifest = sonew("inspect", "infer.bundle", "--json").json
    assert manifest["functions"].keys() == {"eval_step", "predict"}
    assert manifest["files"].keys() == {"vmvx.vmfb", "module.stablehlo", "params.safetensors"}
    assert (manifest["format_version"], manifest["optimizer"], manifest["parameters"]) == (3, {}, 360)
    assert sonew("inspect", "infer.bundle").code == 0
    whole = sonew("eval", "small.bundle", "--checkpoint", "sonew-run", "--json").json
    for words in ((), ("--checkpoint", "sonew-run")):
        alone = sonew("eval", "infer.bundle", "--data", "data.npz", *words, "--json").json
        for split in ("train_loss", "test_loss"):
            assert alone[split] == pytest.approx(whole[split], rel=1e-5)
    for bundle, output in (("small.bundle", "one"), ("infer.bundle", "other")):
        made = sonew("predict", bundle, "--checkpoint", "sonew-run", "--data", "data.npz", "-o", f"{output}.npz")
        assert made.code == 0, made.err
    one, other = (np.load(f"{name}.npz")["prediction"] for name in ("one", "other"))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    run = sonew("run", "infer.bundle", "--data", "data.npz", "-o", "again")
    assert (run.code, "infer.bundle is for inference alone" in run.err) == (2, True), run.err
    onto_itself = sonew("export", "small.bundle", "--checkpoint", "sonew-run", "-o", "small.bundle")
    assert "small.bundle is the bundle to export, which the new one would replace" in onto_itself.err
    # It can be exported from again, with other weights; one of another model is refused.
    assert sonew("export", "infer.bundle", "-o", "w.npz").code == 0
    assert {name: array.shape for name, array in np.load("w.npz").items()} == {"down": (36, 5), "up": (5, 36)}
    assert sonew("export", "infer.bundle", "-o", "w.npz", "--target", "cpu").code == 2
    assert "in .bundle" in sonew("export", "infer.bundle", "-o", "w.onnx").err
    path = Path("infer.bundle/manifest.json")
    path.write_text(path.read_text().replace('"small_model:model"', '"other:model"'))
    refused = sonew("eval", "infer.bundle", "--checkpoint", "sonew-run", "--data", "data.npz")
    assert (refused.code, "is a checkpoint of model 'small_model:model'" in refused.err) == (1, True), refused.err
