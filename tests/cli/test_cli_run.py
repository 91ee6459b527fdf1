"""Whole runs from the command line: trained, stopped, resumed, replaced, evaluated and drawn."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sonew_compiled.runtime.tensorfile import read_metadata, read_tensors

Run = Callable[..., Any]
EXAMPLE = Path(__file__).parents[2] / "docs/examples/perceptron.py"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is a new folder with `small.bundle` and `data.npz`."""
    shutil.copytree(small.bundle, tmp_path / "small.bundle")
    shutil.copy(small.data, tmp_path)
    monkeypatch.chdir(tmp_path)


def steps(folder: str) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in Path(folder).glob("step-*.safetensors"))


def assert_same_state(first: str, second: str) -> None:
    one, other = read_tensors(Path(first)), read_tensors(Path(second))
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.tobytes() == other[name].tobytes(), name


TRAIN = ("run", "small.bundle", "--data", "data.npz", "--epochs", 4)


def test_run_prints_one_json_object(sonew: Run) -> None:
    result = sonew(*TRAIN, "--json")
    assert result.code == 0
    assert {"train_loss", "test_loss", "steps", "seconds", "bundle", "checkpoint"} <= result.json.keys()
    assert (result.json["stopped_early"], result.json["best_checkpoint"]) == (False, None)
    assert result.json["best_test_loss"] >= result.json["test_loss"] * (1 - 1e-12)
    assert result.json["steps"] == 36
    assert result.json["bundle"] == "small.bundle"
    assert result.json["checkpoint"] == "sonew-run/step-00000036.safetensors"
    assert result.json["metrics"] == "sonew-run/metrics.jsonl"
    assert 0 < result.json["test_loss"] < 100
    assert [line.split("  ")[0] for line in result.err.splitlines()[:-1]] == [f"epoch {n}/4" for n in (1, 2, 3, 4)]
    assert result.err.splitlines()[-1].startswith(f"train loss {result.json['train_loss']:.4f}, test loss ")
    assert steps("sonew-run") == [18, 27, 36]


def test_options_of_a_run(sonew: Run) -> None:
    result = sonew(
        *(*TRAIN, "-o", "there", "--keep", 1, "--checkpoint-every", 3, "--seed", 5, "--schedule", "constant"),
        *("--learning-rate", "0.125", "--warmup-epochs", 0, "--device", "local-sync", "--json"),
    )
    assert result.code == 0
    assert result.json["device"] == "local-sync"
    assert steps("there") == [36]
    metadata = read_metadata(Path("there/step-00000036.safetensors"))
    asked = {"seed": "5", "schedule": "constant", "learning_rate": "0.125", "warmup_epochs": "0", "data": "data.npz"}
    assert asked.items() <= metadata.items()
    rows = [json.loads(line) for line in Path("there/metrics.jsonl").read_text().splitlines()]
    assert [row["learning_rate"] for row in rows] == [0.125] * 4


def test_a_run_without_a_bundle_compiles_one(sonew: Run, small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shutil.copytree(small.path, "user", ignore=lambda *_: ["small.bundle", "__pycache__"]))
    model = ("--model", "small_model:model", "--batch-size", 20, "--optimizer", "adam", "--b2", "0.75")
    result = sonew("run", "--data", "data.npz", "--epochs", 2, *model, "-o", "out", "--json", "--max-steps", 11)
    assert result.code == 0
    assert result.err.splitlines()[0] == "no bundle given: compiling one into out/bundle"
    assert (result.json["bundle"], result.json["steps"]) == ("out/bundle", 11)
    manifest = json.loads(Path("out/bundle/manifest.json").read_text())
    assert manifest["optimizer"] == {"name": "adam", "b1": 0.9, "b2": 0.75, "eps": 1e-6}
    # The folder is enough to resume: it holds the bundle and knows the data and the settings.
    assert "go on with: sonew run --resume out --data data.npz --device local-task" in result.err
    resumed = sonew("run", "--resume", "out", "--json")
    assert (resumed.code, resumed.json["steps"], resumed.json["output"]) == (0, 18, "out")
    # Another run does not replace it by accident, and options that are compiled in are refused.
    again = sonew("run", "--data", "data.npz", *model, "-o", "out")
    assert (again.code, again.out) == (2, "")
    assert "--resume out" in again.err
    assert "--overwrite" in again.err
    band = sonew("run", "--resume", "out", "--band", 2)
    assert (band.code, "--band is compiled into the bundle out/bundle" in band.err) == (2, True)


def test_half_and_the_other_half_are_the_whole(sonew: Run) -> None:
    whole = sonew(*TRAIN, "-o", "whole", "--json")
    half = sonew(*TRAIN, "-o", "half", "--json", "--max-steps", 18)
    assert (half.code, half.json["steps"]) == (0, 18)
    assert "stopped after --max-steps 18; go on with: sonew run small.bundle --resume half" in half.err
    resumed = sonew("run", "small.bundle", "--resume", "half", "--json")
    assert resumed.code == 0
    assert_same_state(resumed.json["checkpoint"], whole.json["checkpoint"])
    for key in ("train_loss", "test_loss", "steps"):
        assert resumed.json[key] == whole.json[key]


def test_resuming_one_checkpoint_elsewhere(sonew: Run) -> None:
    sonew(*TRAIN, "-o", "first")
    result = sonew("run", "small.bundle", "--resume", "first/step-00000018.safetensors", "-o", "second", "--json")
    assert (result.code, result.json["steps"]) == (0, 36)
    assert steps("first") == [18, 27, 36]
    assert_same_state("first/step-00000036.safetensors", "second/step-00000036.safetensors")
    more = sonew("run", "small.bundle", "--resume", "second", "--epochs", 6, "--json")
    assert (more.code, more.json["steps"], more.json["output"]) == (0, 54, "second")


def test_resuming_an_earlier_checkpoint_in_its_place(sonew: Run) -> None:
    sonew(*TRAIN, "-o", "first")
    earlier = ("run", "small.bundle", "--resume", "first/step-00000018.safetensors", "--max-steps", 20)
    for more in ((), ("--dry-run",)):
        kept = sonew(*earlier, *more)
        assert (kept.code, kept.out) == (2, "")
        assert "first/step-00000018.safetensors is not the last checkpoint of its run, which is step-" in kept.err
        assert "--overwrite" in kept.err
        assert steps("first") == [18, 27, 36]
    assert sonew(*earlier, "--overwrite").code == 0
    assert steps("first") == [18, 20]


def test_ctrl_c_saves_and_says_how_to_go_on(sonew_apart: Run, tmp_path: Path) -> None:
    train = ("run", "small.bundle", "--data", "data.npz", "--epochs", "300", "--keep", "2", "-o", "my run")
    script = Path(sys.executable).parent / "sonew"
    process = subprocess.Popen([script, *train, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if line.startswith("epoch 3/300"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.stdout.read() == ""
    assert process.returncode == 130
    assert "stopping: finishing the step and saving a checkpoint; Ctrl-C again ends at once" in rest
    message = rest.splitlines()[-1]
    assert message.startswith("sonew: stopped after step ")
    assert "of 2700, saved my run/step-" in message
    command = shlex.split(message.partition("go on with: ")[2])
    assert command[0] == "sonew"
    stopped_at = max(steps("my run"))
    assert 27 <= stopped_at < 2700
    resumed = sonew_apart(*command[1:], "--json", cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    whole = sonew_apart(*train[:-1], "whole", "--json", cwd=tmp_path)
    assert_same_state("my run/step-00002700.safetensors", "whole/step-00002700.safetensors")
    for key in ("train_loss", "test_loss", "steps"):
        assert resumed.json[key] == whole.json[key]
    assert steps("my run") == steps("whole") == [2691, 2700]


def test_overwrite_replaces_a_run_once_there_is_another(sonew: Run) -> None:
    sonew(*TRAIN, "-o", "out")
    shutil.copytree("small.bundle", "out/bundle")
    Path("out/notes.txt").write_text("mine")
    np.savez("few.npz", **{name: array[:1] for name, array in np.load("data.npz").items()})
    for unfit in ("missing.npz", "few.npz"):
        wrong = sonew("run", "small.bundle", "--data", unfit, "-o", "out", "--overwrite")
        assert wrong.code == 2, wrong.err
        assert steps("out") == [18, 27, 36]
        assert Path("out/bundle").exists()
    result = sonew(*TRAIN, "-o", "out", "--overwrite", "--max-steps", 5)
    assert result.code == 0
    assert steps("out") == [5]
    # A file beside the replaced checkpoints would be mistaken for the new ones' bundle.
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("metrics.jsonl", "notes.txt", "step-00000005.safetensors"),
    ]


def test_overwrite_keeps_a_run_s_own_bundle_until_there_is_another(sonew: Run, small: Any) -> None:
    shutil.copy(small.path / "small_model.py", ".")

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}

    compiled = ("run", "--model", "small_model:model", "--batch-size", 20, "--data", "data.npz", "-o", "out", "--json")
    assert sonew(*compiled, "--max-steps", 12).code == 0
    before = files()
    wild = ("--learning-rate", 1e30, "--schedule", "constant")
    diverged = sonew(*compiled, "--overwrite", "--optimizer", "sgd", *wild)
    assert diverged.code == 1, diverged.err
    assert files() == before
    again = sonew(*compiled, "--overwrite", "--optimizer", "sgd", "--max-steps", 5)
    assert again.json["bundle"] == "out/bundle"
    assert json.loads(Path("out/bundle/manifest.json").read_text())["optimizer"]["name"] == "sgd"
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("bundle", "metrics.jsonl", "step-00000005.safetensors"),
    ]
    assert sonew("run", "--resume", "out", "--data", "data.npz", "--max-steps", 9).code == 0


def test_eval_gives_the_losses_of_the_run(sonew: Run) -> None:
    trained = sonew(*TRAIN, "--json").json
    for checkpoint in ("sonew-run", "sonew-run/step-00000036.safetensors"):
        result = sonew("eval", "small.bundle", "--checkpoint", checkpoint, "--json")
        assert result.code == 0
        assert result.json == {
            "train_loss": trained["train_loss"],
            "test_loss": trained["test_loss"],
            "steps": 36,
            "bundle": "small.bundle",
            "checkpoint": "sonew-run/step-00000036.safetensors",
            "data": "data.npz",
        }
    lines = sonew("eval", "small.bundle", "--checkpoint", "sonew-run")
    assert (lines.code, lines.err) == (0, "")
    assert lines.out.startswith(f"train loss {trained['train_loss']:.4f}, ")


def test_reconstruct_draws_inputs_over_outputs(sonew: Run) -> None:
    sonew(*TRAIN)
    result = sonew("reconstruct", "small.bundle", "--checkpoint", "sonew-run", "-o", "deep/picture.png", "--count", 23)
    assert (result.code, result.out, result.err) == (0, "", "wrote deep/picture.png\n")
    with Image.open("deep/picture.png") as picture:
        assert picture.width > 10 * 6
        assert picture.height > 3 * 2 * 6
    refused = sonew("reconstruct", "small.bundle", "--checkpoint", "sonew-run", "-o", "picture.jpg")
    assert (refused.code, refused.err) == (2, "sonew: cannot draw picture.jpg; give a name that ends in .png\n")


def test_a_run_does_not_go_into_a_bundle(sonew: Run) -> None:
    before = sorted(Path("small.bundle").iterdir())
    for more in ((), ("--overwrite",), ("--dry-run",)):
        refused = sonew(*TRAIN, "-o", "small.bundle", *more)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == (
            "sonew: small.bundle is a bundle, and a run takes a folder of its own: choose another --output\n"
        )
    assert sorted(Path("small.bundle").iterdir()) == before


def test_a_run_that_has_all_its_epochs_says_so(sonew: Run) -> None:
    sonew(*TRAIN)
    again = sonew("run", "small.bundle", "--resume", "sonew-run", "--data", TRAIN[3])
    assert again.code == 0
    assert again.err == ("sonew-run/step-00000036.safetensors has all 4 epochs already; give more --epochs to go on\n")


def test_plot_draws_every_run(sonew: Run) -> None:
    for folder, more in (("one", ()), ("two", ("--evaluate-every", 0))):
        sonew(*TRAIN, "-o", folder, *more)
    result = sonew("plot", "one", "two", "-o", "figures/loss.svg")
    assert (result.code, result.out, result.err) == (0, "", "wrote figures/loss.svg\n")
    # matplotlib writes each text of an SVG as a comment beside its shape.
    drawn = Path("figures/loss.svg").read_text()
    assert "<!-- loss -->" in drawn
    rows = [json.loads(line) for line in Path("one/metrics.jsonl").read_text().splitlines()]
    for curve in (f"one, train ({rows[-1]['loss']:.2f})", f"one, test ({rows[-1]['test_loss']:.2f})", "two ("):
        assert f"<!-- {curve}" in drawn
    assert "<!-- two, test" not in drawn
    assert sonew("plot", "two", "-o", "two.svg").code == 0
    assert "<!-- training loss -->" in Path("two.svg").read_text()
    assert sonew("plot", "one", "two", "--metric", "learning_rate", "-o", "rate.svg").code == 0
    assert "<!-- learning rate -->" in Path("rate.svg").read_text()
    wrong = sonew("plot", "one", "--metric", "accuracy")
    assert wrong.code == 2
    assert wrong.err == "sonew: one has no accuracy; give --metric loss, examples_per_second, learning_rate\n"
    manifest = Path(shutil.copytree("small.bundle", "named.bundle")) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"unit": "squared pixels"}))
    assert sonew("run", "named.bundle", *TRAIN[2:], "-o", "named").code == 0
    shutil.rmtree("named.bundle")
    assert sonew("plot", "named", "-o", "unit.svg").code == 0
    drawn = Path("unit.svg").read_text()
    assert "<!-- loss (squared pixels) -->" in drawn
    assert "<!-- loss of small_model:model by tridiag-sonew, f32 -->" in drawn
    assert sonew("plot", "one/metrics.jsonl").code == 0
    with Image.open("loss.png") as picture:
        assert picture.width > 400


def test_what_only_reads_leaves_nothing_behind(sonew: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    for line in ("inspect small.bundle", "targets", "data verify --data mnist-10k"):
        assert sonew(*line.split()).code == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_the_example_of_a_model_trains(sonew: Run) -> None:
    """The example of a model trains with an optimizer for small models, on the embedded digits."""
    shutil.copy(EXAMPLE, ".")
    options = ("--model", "perceptron:model", "--optimizer", "natural-gradient", "--epochs", 2)
    result = sonew("run", *options, "--json")
    assert result.code == 0, result.err
    assert result.json["test_loss"] < 1.2  # nats; an untrained model has 2.3


def test_the_best_is_kept_and_named_and_patience_ends_a_run(sonew: Run) -> None:
    # At a rate of zero no evaluation is better than the first.
    still = (*TRAIN, "--learning-rate", 0, "--keep", 1, "--keep-best", "--patience", 2)
    result = sonew(*still, "--json", "--max-steps", 18)
    assert "--patience 2" in result.err.split("go on with: ")[1]
    result = sonew("run", "small.bundle", "--resume", "sonew-run", *still[-5:], "--json")
    assert (result.code, result.json["steps"], result.json["stopped_early"]) == (0, 27, True), result.err
    assert result.json["best_checkpoint"] == "sonew-run/step-00000009.safetensors"
    assert steps("sonew-run") == [9, 27]
    best = f"{result.json['best_test_loss']:.4f}"
    *_, early, kept, _ = result.err.splitlines()
    assert early == f"stopped early: the test loss was not below {best} in 2 evaluations"
    assert kept == f"the smallest test loss was {best}: sonew-run/step-00000009.safetensors"
