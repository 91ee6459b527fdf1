"""Bundles compute the same as their JAX losses, for any model, tree of parameters and optimizer."""

import functools
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sonew_compiled
from sonew_compiled import UsageError, compile_training
from sonew_compiled.models import autoencoder
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.presets import OptimizerSettings, optimizer_settings
from sonew_compiled.runtime import (
    Dataset,
    Device,
    Program,
    TrainingState,
    TrainSettings,
    bind,
    load_dataset,
    open_bundle,
    save_parameters,
    train,
)

Bundles = Callable[[str], Path]

# A regression with two hidden layers, whose parameters are in a dict, a list and a tuple; a batch has two fields.
SIZES = (6, 4, 3)


def init(key: jax.Array) -> Any:
    keys = jax.random.split(key, 3)
    hidden = [
        {"kernel": jax.random.normal(k, (n, m)) / n**0.5, "bias": jnp.zeros(m)}
        for k, n, m in zip(keys[:2], SIZES, SIZES[1:], strict=False)
    ]
    return {"hidden": hidden, "out": (jax.random.normal(keys[2], (SIZES[-1],)), jnp.zeros(()))}


def predict(params: Any, batch: Any) -> jax.Array:
    x = batch["x"]
    for layer in params["hidden"]:
        x = jnp.tanh(x @ layer["kernel"] + layer["bias"])
    weights, bias = params["out"]
    return x @ weights + bias


def loss(params: Any, batch: Any) -> jax.Array:
    return jnp.mean((predict(params, batch) - batch["y"]) ** 2)


def batch(size: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {"x": jax.ShapeDtypeStruct((size, SIZES[0]), jnp.float32), "y": jax.ShapeDtypeStruct((size,), jnp.float32)}


PARAMETERS = {
    "params/hidden/0/kernel": (6, 4),
    "params/hidden/0/bias": (4,),
    "params/hidden/1/kernel": (4, 3),
    "params/hidden/1/bias": (3,),
    "params/out/0": (3,),
    "params/out/1": (),
}

# Sixteen examples leave the statistics nearly singular. With the damping that ships, rounding alone would show in the
# losses after a few steps.
OPTIMIZERS = {
    "tridiag": optimizer_settings("tridiag-sonew", eps=1e-3),
    "band": optimizer_settings("band-sonew", band=4, eps=1e-3),
    "adam": optimizer_settings("adam"),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """The regression compiled with one of `OPTIMIZERS`, each once; not to be changed."""
    made: dict[str, Path] = {}

    def bundle(name: str) -> Path:
        if name not in made:
            path = tmp_path_factory.mktemp("compiled") / name
            compile_training(
                loss, init, OPTIMIZERS[name], batch(16), output=path, predict=predict, model="regression", check=False
            )
            made[name] = path
        return made[name]

    return bundle


@pytest.fixture(scope="module")
def data() -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((180, SIZES[0])).astype(np.float32)
    y = np.sin(x @ rng.standard_normal(SIZES[0]).astype(np.float32)) + 2
    return Dataset(
        name="sines", train={"x": x[:150], "y": y[:150]}, test={"x": x[150:], "y": y[150:]}, fingerprint="0" * 64
    )


def as_tree(init: Callable[[jax.Array], Any], arrays: Mapping[str, np.ndarray]) -> Any:
    """The parameters of a bundle as the model's tree."""
    paths, tree = jax.tree_util.tree_flatten_with_path({"params": jax.eval_shape(init, jax.random.key(0))})
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    return tree.unflatten([jnp.asarray(arrays[name]) for name in names])["params"]


def jitted_losses(
    loss: Callable[[Any, Any], jax.Array],
    settings: OptimizerSettings,
    params: Any,
    batches: Iterable[Mapping[str, np.ndarray]],
    rate: float,
    *,
    optimized: bool = False,
) -> tuple[list[float], Any]:
    """The losses and the last parameters of plain JAX and optax; optimized code pays for hundreds of large steps."""
    optimizer = optimizer_factory(settings)(rate)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 2} if optimized else None)
    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, gradients = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    losses = []
    for batch in batches:
        params, state, value = step(params, state, batch)
        losses.append(float(value))
    return losses, params


def compiled_losses(
    program: Program, batches: Iterable[Mapping[str, np.ndarray]], rate: float
) -> tuple[list[float], TrainingState]:
    state = TrainingState.initial(program, seed=0)
    learning_rate = program.device.upload(np.array(rate, np.float32))
    return [state.step(program.upload_batch(batch), learning_rate) for batch in batches], state


# Every optimizer, on another model: tests/optimizer/test_optimizers.py.
@pytest.mark.parametrize("name", ["tridiag", "band"])
def test_the_compiled_step_is_the_jitted_one(bundles: Bundles, data: Dataset, cpu: Device, name: str) -> None:
    program = Program.load(open_bundle(bundles(name)), cpu)
    bound = bind(data.train, program.manifest.batch)
    batches = [bound.training_batch(0, step) for step in range(20)]
    start = as_tree(init, TrainingState.initial(program, seed=0).parameters())
    expected, params = jitted_losses(loss, OPTIMIZERS[name], start, batches, rate=1e-2)
    losses, state = compiled_losses(program, batches, rate=1e-2)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert losses[-1] < 0.9 * losses[0]
    for got, wanted in zip(jax.tree.leaves(as_tree(init, state.parameters())), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)


def test_names_shapes_and_initial_parameters(bundles: Bundles, cpu: Device) -> None:
    bundle = open_bundle(bundles("tridiag"))
    manifest = bundle.manifest
    assert {spec.name: spec.shape for spec in manifest.parameters} == PARAMETERS
    assert [(spec.name, spec.shape, spec.dtype) for spec in manifest.batch] == [
        *(("x", (16, 6), "float32"), ("y", (16,), "float32")),
    ]
    assert all(spec.name.startswith(("params/", "optimizer/")) for spec in manifest.state)
    # `predict` does not read the label.
    assert [spec.name for spec in manifest.functions["predict"].inputs if "batch" in spec.name] == ["batch/x"]
    state = TrainingState.initial(Program.load(bundle, cpu), seed=3)
    made = as_tree(init, state.parameters())
    for got, wanted in zip(jax.tree.leaves(made), jax.tree.leaves(init(jax.random.key(3))), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_a_regression_trains(bundles: Bundles, data: Dataset, cpu: Device, tmp_path: Path) -> None:
    bundle = open_bundle(bundles("tridiag"))
    settings = TrainSettings(epochs=40, learning_rate=0.03, schedule="cosine")
    result = train(bundle, data, settings, cpu, output=tmp_path / "run")
    assert result.steps == 40 * 9
    assert result.train_loss < 0.1 * float(np.var(data.train["y"]) + np.mean(data.train["y"]) ** 2)
    # The losses agree with the model, including the last, partly filled batch.
    program = Program.load(bundle, cpu)
    from sonew_compiled.runtime import load_checkpoint

    params = as_tree(init, load_checkpoint(result.checkpoint, bundle.manifest).tensors)
    assert result.train_loss == pytest.approx(float(loss(params, data.train)), rel=1e-5)
    assert result.test_loss == pytest.approx(float(loss(params, data.test)), rel=1e-5)
    assert program.has("predict")


def test_a_bare_batch_a_bare_parameter_and_given_values(
    bundles: Bundles, cpu: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = np.random.default_rng(5).standard_normal((6, 2)).astype(np.float32)
    save_parameters(tmp_path / "given.safetensors", {"params": given})
    output = tmp_path / "factors"
    shutil.copytree(bundles("tridiag"), output)  # an older bundle, to be replaced
    steps: list[str] = []
    manifest = compile_training(
        lambda params, x: jnp.mean(jnp.sum((x @ params @ params.T - x) ** 2, axis=-1)),
        lambda key: jax.random.normal(key, (6, 2)),
        lambda rate: sonew_compiled.sonew(rate, band=1),
        jax.ShapeDtypeStruct((10, 6), jnp.float32),
        output=output,
        model="factors",
        learning_rate=0.25,
        schedule="constant",
        params=tmp_path / "given.safetensors",
        dump_ir=tmp_path / "ir",
        print_ir_after=["merge-exports"],
        progress=steps.append,
    )
    bundle = open_bundle(output)
    bundle.verify()
    assert bundle.manifest == manifest
    assert {path.name for path in output.iterdir()} == {"manifest.json", *manifest.files}
    assert manifest.files.keys() == {"cpu.vmfb", "module.stablehlo", "params.safetensors"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["factors", "given.safetensors", "ir"]
    assert (tmp_path / "ir" / "00-input.mlir").exists()
    assert (tmp_path / "ir" / "02-merge-exports.mlir").read_text() in capsys.readouterr().err
    assert [step.split()[0] for step in steps] == ["trace", "run", "compile", "check"]
    assert manifest.defaults == {"learning_rate": 0.25, "schedule": "constant"}
    assert manifest.optimizer == {"name": "custom"}
    assert [spec.name for spec in manifest.parameters] == ["params"]
    assert [spec.name for spec in manifest.batch] == ["batch"]
    assert "predict" not in manifest.functions

    program = Program.load(bundle, cpu)
    for seed in (0, 1):
        np.testing.assert_array_equal(TrainingState.initial(program, seed=seed).parameters()["params"], given)
    images = np.random.default_rng(6).random((30, 3, 2), np.float32)
    bound = bind({"image": images}, manifest.batch)
    losses, _ = compiled_losses(program, [bound.training_batch(0, step) for step in range(30)], rate=0.01)
    assert losses[-1] < 0.9 * losses[0]


# The environment of a user who has set up JAX for other work, on another machine.
ENVIRONMENT = {
    "PYTHONHASHSEED": "7",
    "JAX_PLATFORMS": "cuda",
    "JAX_PLATFORM_NAME": "gpu",
    "JAX_ENABLE_X64": "1",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
}


def test_the_same_input_gives_the_same_bytes(small: Any, sonew_apart: Callable[..., Any], tmp_path: Path) -> None:
    shutil.copy(small.path / "small_model.py", tmp_path)
    options = ("--model", "small_model:model", "--batch-size", 20)
    result = sonew_apart("compile", *options, "-o", "elsewhere", cwd=tmp_path, env=ENVIRONMENT | {"IREE_TOOL_PATH": ""})
    assert result.code == 0, result.err
    files = {path.name: path.read_bytes() for path in small.bundle.iterdir()}
    assert files.keys() == {"manifest.json", "module.stablehlo", "cpu.vmfb"}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()}
    for name, content in files.items():
        for place in (small.path, tmp_path, Path(__file__).parent.parent):
            assert str(place).encode() not in content, f"{name} holds a path"


def test_the_autoencoder_learns_as_it_does_in_jax(autoencoder_bundle: Path, cpu: Device) -> None:
    """200 steps at full size with the shipped optimizer, on one core: the losses agree to 1e-4 at every step."""
    program = Program.load(open_bundle(autoencoder_bundle), cpu)
    bound = bind(load_dataset("mnist-10k").train, program.manifest.batch)
    batches = [bound.training_batch(0, step) for step in range(200)]
    start = TrainingState.initial(program, seed=0).parameters()
    for layer, wanted in autoencoder.init(jax.random.key(0)).items():
        for name, array in wanted.items():
            np.testing.assert_allclose(start[f"params/{layer}/{name}"], array, rtol=1e-5, atol=1e-7)
    expected, _ = jitted_losses(
        autoencoder.loss, optimizer_settings(), as_tree(autoencoder.init, start), batches, rate=1e-3, optimized=True
    )
    losses, _ = compiled_losses(program, batches, rate=1e-3)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert losses[-1] < 0.5 * losses[0]


def refused(refusal: Callable[..., str], tmp_path: Path, **changes: Any) -> str:
    arguments = {"loss": loss, "init": init, "optimizer": OPTIMIZERS["adam"], "batch": batch(16)} | changes
    message = refusal(UsageError, lambda: compile_training(**arguments, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    return message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": lambda params, batch: batch["y"]}, "it must be a scalar, the mean over the batch's examples"),
        ({"loss": lambda params, batch: (loss(params, batch), 1)}, "it must be a scalar"),
        ({"batch": {**batch(16), "y": batch(8)["y"]}}, "every field needs the batch size as its leading axis"),
        ({"batch": {**batch(16), "y": jax.ShapeDtypeStruct((), jnp.float32)}}, "needs the batch size"),
        ({"batch": {}}, "every field needs the batch size"),
        ({"batch": {"x": (16, 6)}}, "the batch holds 16; give a jax.ShapeDtypeStruct for every field"),
        (
            {"init": lambda key: {"w": jnp.zeros(3, jnp.int32)}},
            "no parameter is left to train: all are integers or booleans",
        ),
        ({"init": lambda key: {"w": jnp.zeros(3, jnp.complex64)}}, "params/w is of dtype complex64"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0; give zero or a positive number"),
        ({"learning_rate": math.nan}, "learning_rate is nan; give zero or a positive number"),
        ({"optimizer": optax.sgd}, "learning_rate is None and the optimizer is a function"),
        ({"targets": ()}, "no target given"),
        ({"targets": ("cpu", "bogus")}, "unknown target 'bogus'; give"),
        ({"print_ir_after": ["inline"]}, "'inline'"),
        ({"params": "missing.safetensors"}, "no file missing.safetensors"),
    ],
)
def test_what_cannot_be_compiled(
    refusal: Callable[..., str], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    assert said in refused(refusal, tmp_path, **changes)


def test_the_manifest_says_what_made_it(bundles: Bundles) -> None:
    manifest = json.loads((bundles("band") / "manifest.json").read_text())
    described = {"name": "band-sonew", "band": 4, "b1": 0.9, "b2": 0.95, "eps": 1e-3}
    words = {"eps_mode": "relative", "grafting": "adam", "rank1": "adam", "flatten": "column"}
    assert manifest["optimizer"] == described | words
    shipped = {name: value for name, value in OPTIMIZERS["band"].values.items() if value is not None}
    assert manifest["optimizer"] == {"name": "band-sonew", **shipped}
    assert manifest["defaults"] == {"learning_rate": OPTIMIZERS["band"].learning_rate, "schedule": "cosine"}
    assert manifest["versions"].keys() == {
        *("sonew-compiled", "iree-base-compiler", "jax", "jaxlib", "optax", "stablehlo"),
    }
    assert manifest["targets"][0]["cpu"]
