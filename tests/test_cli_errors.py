"""Bad input: one line on stderr that names the value, what is accepted and what to do; exit code 1 or 2."""

import contextlib
import json
import math
import resource
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_compiled.presets import OPTIMIZERS
from sonew_compiled.runtime import load_checkpoint, open_bundle
from sonew_compiled.runtime.tensorfile import read_metadata, read_tensors, write_tensors
from sonew_compiled.targets import target_names

Run = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `small.bundle` and `data.npz` in it."""
    shutil.copytree(small.bundle, tmp_path / "small.bundle")
    shutil.copy(small.data, tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(sonew: Run) -> Refused:
    """Runs a command line that must end with this exit code and one line, which it gives without the newline."""

    def run(code: int, *args: object) -> str:
        result = sonew(*args)
        # What was done before it failed, such as epochs, has lines of its own.
        lines = [line for line in result.err.splitlines() if line.startswith("sonew")]
        assert (result.code, result.out, len(lines)) == (code, "", 1), result.err
        assert result.err.endswith(lines[0] + "\n")
        return str(lines[0])

    return run


TRAIN = ("run", "small.bundle", "--data", "data.npz", "--epochs", 4)


@pytest.fixture
def trained(sonew: Run) -> Path:
    """The last checkpoint of a run in `sonew-run`."""
    assert sonew(*TRAIN).code == 0
    return Path("sonew-run/step-00000036.safetensors")


def change_manifest(change: Callable[[dict[str, Any]], object]) -> None:
    path = Path("small.bundle/manifest.json")
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("command", ["run", "compile"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--optimizer lion", ("'--optimizer'", "'lion'", *OPTIMIZERS)),
        ("--schedule linear", ("'--schedule'", "'linear'", "paper", "constant", "cosine")),
        ("--learning-rate -1", ("'--learning-rate'", "'-1'", "zero or a positive number, such as 1e-2")),
        ("--learning-rate nan", ("'--learning-rate'", "'nan'", "zero or a positive number")),
        ("--learning-rate inf", ("'--learning-rate'", "'inf'", "zero or a positive number")),
        ("--learning-rate fast", ("'--learning-rate'", "'fast'", "zero or a positive number")),
        ("--learning-rate 1e39", ("'--learning-rate'", "'1e39'", "zero or a positive number")),
        ("--batch-size 0", ("'--batch-size'", "0 is not in the range x>=1")),
        ("--optimizer adam --band 2", ("--band 2", "adam", "--optimizer band-sonew")),
        ("--band 3", ("--band 3", "tridiag-sonew", "--optimizer band-sonew")),
        ("--optimizer band-sonew --band 99", ("--band is 99", "0 (diagonal) to 32")),
        ("--optimizer shampoo --band 2", ("--band 2 does not go with shampoo", "--precond-interval, --block-size;")),
        ("--optimizer sgd --b1 0.9", ("--b1 0.9 does not go with sgd", "takes no settings")),
        ("--precond-interval 5", ("tridiag-sonew", "--optimizer soap or shampoo or full-adagrad")),
        ("--optimizer shampoo --precond-interval 0", ("--precond-interval is 0", "such as 20")),
        ("--optimizer shampoo --block-size -1", ("--block-size is -1", "such as 1024")),
        ("--optimizer rfdson --rank 99", ("--rank is 99", "from 1 to 64")),
        ("--optimizer adamw --weight-decay -1", ("--weight-decay is -1.0", "zero or a positive number")),
        ("--optimizer schedule-free-adamw --b1 0", ("--b1 is 0", "such as 0.9")),
        ("--b1 1.5", ("--b1 is 1.5", "[0, 1)")),
        ("--b2 nan", ("--b2 is nan", "[0, 1)")),
        ("--b2 0.99999999", ("--b2 is 0.99999999", "[0, 1)")),
        ("--optimizer kbfgs --eps 2", ("--eps is 2.0", "below 1.0", "such as 0.3")),
        ("--eps 0", ("--eps is 0.0", "a positive number, such as 1e-7")),
        ("--target bogus", ("'bogus'", *target_names())),
        ("--model nonsense", ("'nonsense'", "autoencoder", "package.module:attribute")),
        ("--params missing.safetensors", ("missing.safetensors", "check the name")),
    ],
)
def test_options_that_say_what_to_compile(
    refused: Refused, small: Any, command: str, options: str, said: tuple[str, ...]
) -> None:
    shutil.copy(small.path / "small_model.py", ".")
    data = ("--data", "data.npz") if command == "run" else ()
    model = () if "--model" in options else ("--model", "small_model:model")
    message = refused(2, command, *data, *model, *options.split(), "-o", "out")
    for part in said:
        assert part in message
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--epochs 0", ("'--epochs'", "x>=1")),
        ("--epochs many", ("'--epochs'", "'many'")),
        ("--seed -1", ("'--seed'", "0<=x<=2147483647")),
        ("--seed 2147483648", ("'--seed'", "0<=x<=2147483647")),
        ("--warmup-epochs -1", ("'--warmup-epochs'", "x>=0")),
        ("--keep 0", ("'--keep'", "x>=1")),
        ("--max-steps 0", ("'--max-steps'", "x>=1")),
        ("--device tpu9", ("'tpu9'", "local-task, local-sync")),
        ("--device local-task://7", ("'local-task://7'", "local-task, local-sync")),
        ("--data nothing", ("`nothing`", "mnist-10k", "mnist", ".npz")),
        ("--data nothing.npz", ("no file `nothing.npz`", "mnist-10k")),
        ("--data .", ("is a folder", "--data mnist --data-dir .")),
        ("--optimizer adam", ("--optimizer is compiled into the bundle small.bundle", "sonew compile")),
        ("--batch-size 5", ("--batch-size is compiled into the bundle small.bundle", "sonew compile")),
        ("--target cpu", ("--target is compiled into the bundle small.bundle", "sonew compile")),
        ("--resume missing", ("no checkpoint at missing", "step-*.safetensors")),
        ("--resume small.bundle", ("no checkpoint (step-*.safetensors) in small.bundle", "--output of an earlier run")),
    ],
)
def test_options_that_say_how_to_train(refused: Refused, options: str, said: tuple[str, ...]) -> None:
    message = refused(2, "run", "small.bundle", "--data", "data.npz", *options.split())
    for part in said:
        assert part in message
    assert not Path("sonew-run").exists()


@pytest.mark.parametrize("line", ["run X", "eval X --checkpoint c", "reconstruct X --checkpoint c", "inspect X"])
@pytest.mark.parametrize("name", ["missing", "file", "folder"])
def test_what_is_not_a_bundle(refused: Refused, line: str, name: str) -> None:
    Path("file").write_text("")
    Path("folder").mkdir()
    message = refused(2, *line.replace("X", name).split())
    assert name in message
    assert "sonew compile" in message


def test_damaged_executables(refused: Refused) -> None:
    path = Path("small.bundle/cpu.vmfb")
    content = path.read_bytes()
    damages: dict[str, Callable[[], object]] = {
        "is missing": path.unlink,
        "truncated": lambda: path.write_bytes(content[:-100]),
        "has SHA-256": lambda: path.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:]),
    }
    for said, damage in damages.items():
        damage()
        for line in (TRAIN, ("inspect", "small.bundle")):
            message = refused(1, *line)
            assert "small.bundle/cpu.vmfb" in message
            assert said in message
            assert "compile the bundle again" in message


def test_an_executable_that_is_none(refused: Refused) -> None:
    """With a hash that fits, so that it is IREE that finds out."""
    import hashlib

    content = b"not an executable" * 100
    Path("small.bundle/cpu.vmfb").write_bytes(content)
    spec = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    change_manifest(lambda manifest: manifest["files"].update({"cpu.vmfb": spec}))
    message = refused(1, *TRAIN)
    assert "small.bundle/cpu.vmfb cannot be loaded on device local-task" in message
    assert "compile the bundle again" in message


def test_damaged_manifests(refused: Refused) -> None:
    path = Path("small.bundle/manifest.json")
    text = path.read_text()
    for content, said in (
        (text[: len(text) // 2], "truncated or corrupt"),
        ("\xff\xfe", "not JSON"),
        ("[]", "no format_version"),
        ("{}", "no format_version"),
    ):
        path.write_text(content)
        for line in (TRAIN, ("inspect", "small.bundle")):
            message = refused(1, *line)
            assert "small.bundle/manifest.json" in message
            assert said in message
            assert "compile the bundle again" in message
    path.write_bytes(b"\xff\xfe")
    assert "corrupt" in refused(1, "inspect", "small.bundle")


def test_manifests_that_lack_something_or_hold_something_else(sonew: Run) -> None:
    """Whatever is changed: it is refused on one line, or was not needed; never a traceback."""
    path = Path("small.bundle/manifest.json")
    original = json.loads(path.read_text())

    def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        keys = (
            list(value)
            if isinstance(value, dict)
            else list(range(min(len(value), 2)))
            if isinstance(value, list)
            else []
        )
        for key in keys:
            yield (*at, key)
            yield from places(value[key], (*at, key))

    def without(at: tuple[Any, ...], *replacement: Any) -> Any:
        changed = json.loads(json.dumps(original))
        inner = changed
        for key in at[:-1]:
            inner = inner[key]
        if replacement:
            inner[at[-1]] = replacement[0]
        else:
            del inner[at[-1]]
        return changed

    refusals = 0
    for at in places(original):
        if at[0] == "functions" and len(at) > 4 and at[1] != "train_step":
            continue  # like those of train_step
        for change in ((), (None,), ("text",), (7,), ([],), ({},)):
            path.write_text(json.dumps(without(at, *change)))
            result = sonew("inspect", "small.bundle")
            assert result.code in (0, 1), (at, change)
            if result.code == 1:
                refusals += 1
                assert result.err.startswith("sonew: small.bundle/"), (at, change)
                assert result.err.count("\n") == 1, (at, change)
    assert refusals > 100


@pytest.mark.parametrize("key", ["learning_rate", "schedule"])
def test_a_manifest_without_defaults_to_train_by(refused: Refused, key: str) -> None:
    change_manifest(lambda manifest: manifest["defaults"].pop(key))
    message = refused(1, *TRAIN)
    assert "small.bundle/manifest.json" in message
    assert key in message


def test_a_newer_bundle(refused: Refused) -> None:
    change_manifest(lambda manifest: manifest.update(format_version=99))
    for line in (TRAIN, ("inspect", "small.bundle")):
        message = refused(1, *line)
        assert "format version 99; this runtime reads 1 to " in message
        assert "upgrade sonew-compiled" in message


def test_a_dtype_that_there_is_not(refused: Refused) -> None:
    change_manifest(lambda manifest: manifest["functions"]["train_step"]["inputs"][-1].update(dtype="float12"))
    message = refused(1, *TRAIN)
    assert "float12" in message
    assert "compile the bundle again" in message


def test_a_bundle_without_code_for_the_device(refused: Refused) -> None:
    change_manifest(lambda manifest: manifest["targets"][0].update(name="cuda:sm_80", driver="cuda"))
    message = refused(1, *TRAIN)
    assert "no code for device local-task: it holds cuda:sm_80" in message
    assert "sonew compile --target cpu" in message


def test_a_bundle_for_another_processor(refused: Refused) -> None:
    change_manifest(lambda manifest: manifest["targets"][0].update(cpu="future", cpu_features=["avx9000"]))
    message = refused(1, *TRAIN)
    assert "for future, this one lacks avx9000" in message
    assert "sonew compile --target cpu" in message


def test_damaged_checkpoints(refused: Refused, trained: Path) -> None:
    content = trained.read_bytes()
    lines = (
        ("run", "small.bundle", "--data", "data.npz", "--resume", trained),
        ("eval", "small.bundle", "--checkpoint", trained),
        ("reconstruct", "small.bundle", "--checkpoint", trained),
    )
    for damage in (
        content[: len(content) // 2],
        content[:-300] + bytes([content[-300] ^ 1]) + content[-299:],
        content[:5],
        b"",
        b"\xff" * 100,
        b"{}",
    ):
        trained.write_bytes(damage)
        for line in lines:
            message = refused(1, *line)
            assert str(trained) in message
            assert "truncated" in message or "corrupt" in message
    trained.unlink()
    for line in lines:
        message = refused(2, *line)
        assert f"no checkpoint at {trained}" in message


def test_a_safetensors_file_that_is_no_checkpoint(refused: Refused) -> None:
    path = Path("other.safetensors")
    write_tensors(path, {"x": np.zeros(3, np.float32)})
    message = refused(1, "eval", "small.bundle", "--checkpoint", path)
    assert "other.safetensors is not a checkpoint of `sonew run`" in message


def test_a_newer_checkpoint(refused: Refused, trained: Path) -> None:
    metadata = {key: value for key, value in read_metadata(trained).items() if key != "sha256"}
    write_tensors(trained, read_tensors(trained), {**metadata, "format_version": "99"})
    message = refused(1, "eval", "small.bundle", "--checkpoint", trained)
    assert "checkpoint format version 99; this runtime reads up to 1" in message
    assert "upgrade sonew-compiled" in message


def test_a_checkpoint_of_another_model_or_optimizer(refused: Refused, trained: Path) -> None:
    change_manifest(lambda manifest: manifest.update(model="other"))
    for line in (
        ("run", "small.bundle", "--data", "data.npz", "--resume", "sonew-run"),
        ("eval", "small.bundle", "--checkpoint", "sonew-run"),
    ):
        message = refused(1, *line)
        assert f"{trained} is a checkpoint of model 'small_model:model', the bundle has 'other'" in message
        assert "use the bundle that it was trained with" in message
    change_manifest(lambda manifest: manifest.update(model="small_model:model", optimizer={"name": "adam"}))
    message = refused(1, "eval", "small.bundle", "--checkpoint", trained)
    assert "is a checkpoint of optimizer 'tridiag-sonew', the bundle has 'adam'" in message


def test_going_on_with_other_data(refused: Refused, trained: Path) -> None:
    np.savez("other.npz", image=np.zeros((99, 6, 6), np.uint8))
    message = refused(2, "run", "small.bundle", "--resume", "sonew-run", "--data", "other.npz")
    assert str(trained) in message
    assert "give the --data it had, data.npz" in message
    Path("data.npz").unlink()
    message = refused(2, "run", "small.bundle", "--resume", "sonew-run")
    assert "no file `data.npz`" in message


def test_going_on_where_the_run_is_no_more(refused: Refused, trained: Path) -> None:
    message = refused(2, "run", "--resume", "sonew-run")
    assert f"no bundle beside {trained}" in message
    assert message.endswith("sonew run BUNDLE --resume sonew-run")
    message = refused(2, "run", "small.bundle", "--resume", "sonew-run", "--epochs", 2)
    assert "is at step 36, beyond the 18 steps of 2 epochs: choose more --epochs" in message
    message = refused(2, *TRAIN)
    assert "sonew-run holds another run" in message
    assert "--resume sonew-run" in message
    assert "--overwrite" in message


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"image": np.zeros((99, 5, 5), np.uint8)}, ("(5, 5)", "(36,)", "use other data or another model")),
        ({"image": np.zeros((99, 6, 6), np.int64)}, ("int64", "float32", "accepted are")),
        ({"image": np.zeros((99, 6, 6), np.complex64)}, ("complex64", "an integer or floating-point dtype")),
        ({"image": np.full((99, 6, 6), "x")}, ("dtype <U1", "an integer or floating-point dtype")),
        ({"image": np.full((99, 6, 6), np.nan, np.float32)}, ("nan", "every value must be finite")),
        ({"image": np.zeros((12, 6, 6), np.uint8)}, ("training examples, less than one batch of 20", "--batch-size")),
        ({"image": np.zeros((0, 6, 6), np.uint8)}, ("0 example(s)", "at least 2")),
        ({"image": np.zeros((99, 6, 6), np.uint8), "label": np.zeros(3, np.int32)}, ("different lengths", "label 3")),
        ({"train_image": np.zeros((99, 6, 6), np.uint8)}, ("only one of the training and test parts",)),
        ({"a": np.zeros((99, 6, 6), np.uint8), "b": np.zeros(99, np.uint8)}, ("no field image", "a, b")),
        ({}, ("no arrays", "train_<field>")),
    ],
)
def test_data_that_do_not_fit(refused: Refused, arrays: dict[str, Any], said: tuple[str, ...]) -> None:
    np.savez("bad.npz", **arrays)
    message = refused(2, "run", "small.bundle", "--data", "bad.npz")
    for part in said:
        assert part in message
    assert not Path("sonew-run").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.npz", b"PK\x03\x04 truncated"),
        ("bad.npz", b""),
        ("bad.npy", b"\x93NUMPY\x01\x00"),
        ("bad-idx3-ubyte.gz", b"\x1f\x8b\x08 corrupt"),
        ("bad-idx3-ubyte", b"\0\0\x08\x03\0\0\0\x05"),
        ("bad-idx3-ubyte", b"no IDX"),
    ],
)
def test_damaged_data(refused: Refused, name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    message = refused(1, "run", "small.bundle", "--data", name)
    assert name in message
    assert "save" in message


def test_mnist_that_is_not_there_or_damaged(refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONEW_DATA", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for line in ("run small.bundle", "data verify"):
        message = refused(1, *line.split(), *(["--data", "mnist"]), "--data-dir", "b")
        assert "sonew data fetch --data-dir b" in message
        assert "train- and t10k-, images-idx3-ubyte and labels-idx1-ubyte" in message
    Path("b").mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        Path(f"b/{name}-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x00")
    message = refused(1, "run", "small.bundle", "--data", "mnist", "--data-dir", "b")
    assert "b/train-images-idx3-ubyte is not MNIST's train-images-idx3-ubyte: SHA-256" in message
    assert "sonew data fetch --data-dir b" in message
    Path("file").write_text("")
    message = refused(2, "data", "verify", "--data-dir", "file")
    assert "Directory 'file' is a file" in message


MODELS = {
    "raises": "raise RuntimeError('no luck\\nat all')",
    "misspelt": "def f(:\n    pass",
    "needs": "import package_that_nobody_has",
    "other": "model = 5",
    "loss_raises": """
        import jax, jax.numpy as jnp
        from sonew_compiled import Model
        def loss(params, batch):
            return jnp.mean(batch["image"] @ params)
        model = Model(init=lambda key: jnp.zeros((3, 3)), loss=loss,
                      batch=lambda n: {"image": jax.ShapeDtypeStruct((n, 5), jnp.float32)})
        """,
    "loss_vector": """
        import jax, jax.numpy as jnp
        from sonew_compiled import Model
        model = Model(init=lambda key: jnp.zeros((5,)), loss=lambda p, b: b["image"] @ p,
                      batch=lambda n: {"image": jax.ShapeDtypeStruct((n, 5), jnp.float32)})
        """,
    "batch_ints": """
        import jax.numpy as jnp
        from sonew_compiled import Model
        model = Model(init=lambda key: jnp.zeros((5,)), loss=lambda p, b: p.sum(), batch=lambda n: {"image": n})
        """,
    "batch_raises": """
        import jax.numpy as jnp
        from sonew_compiled import Model
        model = Model(init=lambda key: jnp.zeros((5,)), loss=lambda p, b: p.sum(), batch=lambda: None)
        """,
}


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("nonsense", 2, ("unknown model 'nonsense'", "autoencoder", "package.module:attribute")),
        (":model", 2, ("unknown model ':model'",)),
        ("nowhere:model", 2, ("no module nowhere", "run sonew in the folder that it is in")),
        ("nowhere.inner:model", 2, ("no module nowhere",)),
        ("other:thing", 2, ("thing is missing in other", "make it a sonew_compiled.Model")),
        ("other:model", 2, ("model is of type int in other", "make it a sonew_compiled.Model")),
        ("needs:model", 2, ("importing needs needs package_that_nobody_has; install it",)),
        ("raises:model", 1, ("raises.py line 1 raised RuntimeError: no luck",)),
        ("misspelt:model", 1, ("misspelt.py line 1 raised SyntaxError",)),
        ("loss_raises:model", 1, ("loss_raises.py line 4 raised TypeError: dot_general",)),
        ("loss_vector:model", 2, ("the loss returned ShapeDtypeStruct(shape=(20,)", "it must be a scalar")),
        ("batch_ints:model", 2, ("the batch holds 20", "jax.ShapeDtypeStruct for every field")),
    ],
)
def test_models_of_a_user(refused: Refused, name: str, code: int, said: tuple[str, ...]) -> None:
    for module, source in MODELS.items():
        Path(f"{module}.py").write_text(textwrap.dedent(source).lstrip())
    try:
        message = refused(code, "compile", "--model", name, "--batch-size", 20, "-o", "out")
    finally:
        for module in MODELS:
            sys.modules.pop(module, None)
    for part in said:
        assert part in message
    assert not Path("out").exists()


def test_parameters_that_are_not_the_models(refused: Refused, small: Any) -> None:
    shutil.copy(small.path / "small_model.py", ".")
    line = ("compile", "--model", "small_model:model", "-o", "out", "--params", "p.safetensors")
    write_tensors(Path("p.safetensors"), {"params/down": np.zeros((36, 4), np.float32)})
    message = refused(1, *line)
    assert "p.safetensors does not hold this model's parameters: 'params/down' has shape [36, 4]" in message
    assert "[36, 5]" in message
    Path("p.safetensors").write_bytes(b"nonsense")
    assert "p.safetensors is not a whole safetensors file" in refused(1, *line)
    assert not Path("out").exists()


def test_a_pass_that_there_is_not(refused: Refused, small: Any) -> None:
    shutil.copy(small.path / "small_model.py", ".")
    message = refused(2, "compile", "--model", "small_model:model", "-o", "out", "--print-ir-after", "inline")
    assert "'inline'" in message
    assert "merge-exports" in message
    assert "all" in message


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        ("folder", 2, "folder is a directory that is not a bundle, or holds more than one; give a new directory, or"),
        ("extension", 2, "extension is a directory that is not a bundle, or holds more than one"),
        ("file", 2, "file is a file; give a new directory, or an older bundle to replace"),
        ("file/deeper/bundle", 1, "file is no directory to write to; give another output"),
    ],
)
def test_bundles_go_where_they_destroy_nothing(refused: Refused, small: Any, output: str, code: int, said: str) -> None:
    shutil.copy(small.path / "small_model.py", ".")
    Path("folder").mkdir()
    Path("folder/thesis.tex").write_text("years of work")
    Path("file").write_text("more of it")
    Path("extension").mkdir()
    Path("extension/manifest.json").write_text('{"name": "of a browser", "files": {}}')
    Path("extension/script.js").write_text("weeks of work")
    message = refused(code, "compile", "--model", "small_model:model", "-o", output)
    assert said in message
    assert Path("folder/thesis.tex").read_text() == "years of work"
    assert Path("file").read_text() == "more of it"
    assert Path("extension/script.js").exists()


def test_output_that_cannot_be_written(refused: Refused, trained: Path) -> None:
    Path("file").write_text("")
    message = refused(1, *TRAIN, "-o", "file/run")
    assert "file/run" in message
    assert "choose another --output" in message
    message = refused(1, "reconstruct", "small.bundle", "--checkpoint", trained, "-o", "file/x.png")
    assert "file/x.png cannot be written" in message
    message = refused(1, "plot", "sonew-run", "-o", "file/x.png")
    assert "cannot write file/x.png" in message
    message = refused(2, "plot", "sonew-run", "-o", "x.bmp")
    assert "cannot draw x.bmp; give a name that ends in .png, .svg or .pdf" in message
    message = refused(1, "data", "fetch", "--data-dir", "file/data")
    assert "cannot write to file/data" in message


def test_plots_of_what_was_not_trained(refused: Refused) -> None:
    message = refused(1, "plot", "nowhere")
    assert "nowhere holds no metrics.jsonl with a finished epoch; give the --output of a `sonew run`" in message
    Path("odd").mkdir()
    Path("odd/metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    assert "odd/metrics.jsonl has lines without an epoch and a loss" in refused(1, "plot", "odd")
    Path("odd/metrics.jsonl").write_text("nonsense\n{}\n")
    assert "odd/metrics.jsonl line 1 is not a line of metrics" in refused(1, "plot", "odd")


def test_a_model_that_cannot_be_drawn(refused: Refused, trained: Path) -> None:
    change_manifest(lambda manifest: manifest["functions"].pop("predict"))
    message = refused(2, "reconstruct", "small.bundle", "--checkpoint", trained)
    assert "has no predict function: give the model one and compile it again" in message


def test_a_loss_that_is_no_number_keeps_the_last_checkpoint(refused: Refused, trained: Path) -> None:
    # The compiled optimizer bounds its steps: only a rate at the end of float32's range makes it diverge.
    message = refused(1, *TRAIN, "-o", "wild", "--learning-rate", "1e38", "--schedule", "constant")
    assert "of 36: lower --learning-rate, now 1e+38; there is no checkpoint yet" in message
    message = refused(
        *(1, "run", "small.bundle", "--resume", trained, "--epochs", 8, "--warmup-epochs", 0),
        *("--learning-rate", "1e38", "--schedule", "constant"),
    )
    assert f"the last good checkpoint is {trained}" in message
    assert load_checkpoint("sonew-run", open_bundle("small.bundle").manifest).step == 36


@contextlib.contextmanager
def full_disk(after: int) -> Iterator[None]:
    """No file can grow beyond `after` bytes, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_keeps_the_last_checkpoint(refused: Refused, trained: Path) -> None:
    before = trained.read_bytes()
    with full_disk(after=2000):
        message = refused(1, "run", "small.bundle", "--resume", trained, "--epochs", 8)
    assert "sonew-run/step-00000045.safetensors cannot be written (File too large)" in message
    assert "free space, or choose another --output" in message
    assert f"the last good checkpoint is {trained}" in message
    assert trained.read_bytes() == before
    assert not list(Path("sonew-run").glob(".*"))


def test_a_full_disk_while_compiling(refused: Refused, small: Any) -> None:
    shutil.copy(small.path / "small_model.py", ".")
    shutil.copytree("small.bundle", "out")
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    with full_disk(after=100):
        # What would fill it first is the dump: nothing need be compiled.
        message = refused(1, "compile", "--model", "small_model:model", "-o", "out", "--dump-ir", "ir")
    assert "File too large" in message
    assert "free space" in message
    assert before == {path.name: path.read_bytes() for path in Path("out").iterdir()}


def test_learning_rates_that_a_bundle_cannot_have(sonew: Run) -> None:
    for rate in (-1.0, math.nan, "fast", None):
        change_manifest(lambda manifest, rate=rate: manifest["defaults"].update(learning_rate=rate))
        result = sonew(*TRAIN)
        assert result.code in (1, 2)
        assert result.err.count("\n") == 1
        assert "learning" in result.err
