"""Bundles that are compiled once, and the command line as a function."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

# JAX is to look for no accelerator: where there is none, libtpu fills stderr.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from sonew_compiled.contract import Role
from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import Dataset, Device, open_device
from sonew_compiled.runtime.manifest import FileSpec, FunctionSpec, Manifest, TargetSpec, TensorSpec

ROOT = Path(__file__).parent.parent

# A linear autoencoder of 4 pixels with momentum: state in three dtypes, donated as the compiler does it.
TINY = """
module @tiny {
  func.func public @init(%seed: tensor<i32>)
      -> (tensor<4x4xf32>, tensor<4xbf16>, tensor<4x4xf32>, tensor<i32>) {
    %iota = stablehlo.iota dim = 0 : tensor<16xf32>
    %ramp = stablehlo.reshape %iota : (tensor<16xf32>) -> tensor<4x4xf32>
    %s = stablehlo.convert %seed : (tensor<i32>) -> tensor<f32>
    %sb = stablehlo.broadcast_in_dim %s, dims = [] : (tensor<f32>) -> tensor<4x4xf32>
    %scale = stablehlo.constant dense<0.01> : tensor<4x4xf32>
    %sum = stablehlo.add %ramp, %sb : tensor<4x4xf32>
    %w = stablehlo.multiply %sum, %scale : tensor<4x4xf32>
    %b = stablehlo.constant dense<0.0> : tensor<4xbf16>
    %m = stablehlo.constant dense<0.0> : tensor<4x4xf32>
    %n = stablehlo.constant dense<0> : tensor<i32>
    return %w, %b, %m, %n : tensor<4x4xf32>, tensor<4xbf16>, tensor<4x4xf32>, tensor<i32>
  }
  func.func public @train_step(
      %w: tensor<4x4xf32> {iree.abi.output = 0 : index}, %b: tensor<4xbf16> {iree.abi.output = 1 : index},
      %m: tensor<4x4xf32> {iree.abi.output = 2 : index}, %n: tensor<i32> {iree.abi.output = 3 : index},
      %x: tensor<8x4xf32>, %lr: tensor<f32>)
      -> (tensor<4x4xf32>, tensor<4xbf16>, tensor<4x4xf32>, tensor<i32>, tensor<f32>) {
    %xw = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
        : (tensor<8x4xf32>, tensor<4x4xf32>) -> tensor<8x4xf32>
    %bf = stablehlo.convert %b : (tensor<4xbf16>) -> tensor<4xf32>
    %bb = stablehlo.broadcast_in_dim %bf, dims = [1] : (tensor<4xf32>) -> tensor<8x4xf32>
    %y = stablehlo.add %xw, %bb : tensor<8x4xf32>
    %r = stablehlo.subtract %y, %x : tensor<8x4xf32>
    %sq = stablehlo.multiply %r, %r : tensor<8x4xf32>
    %zero = stablehlo.constant dense<0.0> : tensor<f32>
    %sum = stablehlo.reduce(%sq init: %zero) applies stablehlo.add across dimensions = [0, 1]
        : (tensor<8x4xf32>, tensor<f32>) -> tensor<f32>
    %eighth = stablehlo.constant dense<0.125> : tensor<f32>
    %loss = stablehlo.multiply %sum, %eighth : tensor<f32>
    %xr = stablehlo.dot_general %x, %r, contracting_dims = [0] x [0]
        : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
    %quarter = stablehlo.constant dense<0.25> : tensor<4x4xf32>
    %g = stablehlo.multiply %xr, %quarter : tensor<4x4xf32>
    %decay = stablehlo.constant dense<0.9> : tensor<4x4xf32>
    %md = stablehlo.multiply %m, %decay : tensor<4x4xf32>
    %m1 = stablehlo.add %md, %g : tensor<4x4xf32>
    %lrw = stablehlo.broadcast_in_dim %lr, dims = [] : (tensor<f32>) -> tensor<4x4xf32>
    %uw = stablehlo.multiply %m1, %lrw : tensor<4x4xf32>
    %w1 = stablehlo.subtract %w, %uw : tensor<4x4xf32>
    %gb = stablehlo.reduce(%r init: %zero) applies stablehlo.add across dimensions = [0]
        : (tensor<8x4xf32>, tensor<f32>) -> tensor<4xf32>
    %lrb = stablehlo.broadcast_in_dim %lr, dims = [] : (tensor<f32>) -> tensor<4xf32>
    %ub = stablehlo.multiply %gb, %lrb : tensor<4xf32>
    %bs = stablehlo.subtract %bf, %ub : tensor<4xf32>
    %b1 = stablehlo.convert %bs : (tensor<4xf32>) -> tensor<4xbf16>
    %one = stablehlo.constant dense<1> : tensor<i32>
    %n1 = stablehlo.add %n, %one : tensor<i32>
    return %w1, %b1, %m1, %n1, %loss
        : tensor<4x4xf32>, tensor<4xbf16>, tensor<4x4xf32>, tensor<i32>, tensor<f32>
  }
  func.func public @eval_step(%w: tensor<4x4xf32>, %b: tensor<4xbf16>, %x: tensor<8x4xf32>) -> tensor<8xf32> {
    %xw = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
        : (tensor<8x4xf32>, tensor<4x4xf32>) -> tensor<8x4xf32>
    %bf = stablehlo.convert %b : (tensor<4xbf16>) -> tensor<4xf32>
    %bb = stablehlo.broadcast_in_dim %bf, dims = [1] : (tensor<4xf32>) -> tensor<8x4xf32>
    %y = stablehlo.add %xw, %bb : tensor<8x4xf32>
    %r = stablehlo.subtract %y, %x : tensor<8x4xf32>
    %sq = stablehlo.multiply %r, %r : tensor<8x4xf32>
    %zero = stablehlo.constant dense<0.0> : tensor<f32>
    %losses = stablehlo.reduce(%sq init: %zero) applies stablehlo.add across dimensions = [1]
        : (tensor<8x4xf32>, tensor<f32>) -> tensor<8xf32>
    return %losses : tensor<8xf32>
  }
  func.func public @predict(%w: tensor<4x4xf32>, %b: tensor<4xbf16>, %x: tensor<8x4xf32>) -> tensor<8x4xf32> {
    %xw = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
        : (tensor<8x4xf32>, tensor<4x4xf32>) -> tensor<8x4xf32>
    %bf = stablehlo.convert %b : (tensor<4xbf16>) -> tensor<4xf32>
    %bb = stablehlo.broadcast_in_dim %bf, dims = [1] : (tensor<4xf32>) -> tensor<8x4xf32>
    %y = stablehlo.add %xw, %bb : tensor<8x4xf32>
    return %y : tensor<8x4xf32>
  }
}
"""

_BACKENDS = {
    "cpu": ("local", ["--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu"]),
    "vmvx": ("local", ["--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=vmvx"]),
    "vulkan": ("vulkan", ["--iree-hal-target-device=vulkan"]),
}


def _tensor(name: str, shape: tuple[int, ...], dtype: str, role: Role) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype, role=role)


_PARAMETERS = (
    _tensor("params/w", (4, 4), "float32", Role.PARAMETER),
    _tensor("params/b", (4,), "bfloat16", Role.PARAMETER),
)
_STATE = (
    *_PARAMETERS,
    _tensor("optimizer/0/w", (4, 4), "float32", Role.OPTIMIZER),
    _tensor("optimizer/count", (), "int32", Role.OPTIMIZER),
)
_BATCH = (_tensor("batch/image", (8, 4), "float32", Role.BATCH),)

FUNCTIONS = {
    "init": FunctionSpec(inputs=(_tensor("seed", (), "int32", Role.SEED),), outputs=_STATE),
    "train_step": FunctionSpec(
        inputs=(*_STATE, *_BATCH, _tensor("learning_rate", (), "float32", Role.LEARNING_RATE)),
        outputs=(*_STATE, _tensor("loss", (), "float32", Role.LOSS)),
    ),
    "eval_step": FunctionSpec(inputs=(*_PARAMETERS, *_BATCH), outputs=(_tensor("losses", (8,), "float32", Role.LOSS),)),
    "predict": FunctionSpec(
        inputs=(*_PARAMETERS, *_BATCH), outputs=(_tensor("prediction", (8, 4), "float32", Role.PREDICTION),)
    ),
}


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for the CPU (generic code, then bytecode) and Vulkan; not to be changed."""
    from iree.compiler import compile_str

    path = tmp_path_factory.mktemp("bundles") / "tiny"
    path.mkdir()
    files = {}
    for name, (_, flags) in _BACKENDS.items():
        content = compile_str(TINY, input_type="stablehlo", extra_args=flags)
        (path / f"{name}.vmfb").write_bytes(content)
        files[f"{name}.vmfb"] = FileSpec(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    manifest = Manifest(
        model="tiny",
        optimizer={"name": "momentum"},
        defaults={"learning_rate": 0.05, "schedule": "constant"},
        versions={"iree-base-compiler": "3.13.0"},
        functions=FUNCTIONS,
        targets=tuple(
            TargetSpec(name=name, file=f"{name}.vmfb", driver=driver) for name, (driver, _) in _BACKENDS.items()
        ),
        files=files,
    )
    (path / "manifest.json").write_text(manifest.to_json())
    return path


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that the test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


@pytest.fixture(scope="session")
def tiny_data() -> Dataset:
    """83 examples to train on, 10 whole batches and 3 over, and 11 to test on."""
    rng = np.random.default_rng(0)
    return Dataset(
        name="tiny-data",
        train={"image": rng.random((83, 2, 2), np.float32)},
        test={"image": rng.random((11, 2, 2), np.float32)},
        fingerprint="0123456789abcdef",
    )


@pytest.fixture(params=["local-sync", "local-task", "vulkan"])
def device(request: pytest.FixtureRequest) -> Device:
    """Each device that the tiny bundle has code for, skipped where it is not there."""
    return _open_or_skip(request.param)


@pytest.fixture
def cpu() -> Device:
    """The CPU, on one core."""
    return open_device("local-sync")


def _open_or_skip(name: str) -> Device:
    try:
        return open_device(name)
    except SonewError as error:
        pytest.skip(str(error))


@pytest.fixture
def float64() -> Iterator[None]:
    """JAX computes in float64 what is given so, as an oracle needs it."""
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def by_rules() -> Callable[..., Any]:
    """What a JAX function gives of arrays where our rules lower it and XLA compiles that."""
    import jax

    from sonew_compiled.rules import lowering_parameters

    def run(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        traced = jax.jit(lambda *arguments: function(*arguments, **options)).trace(*arguments)
        lowered = traced.lower(lowering_platforms=("cpu",), _private_parameters=lowering_parameters())
        assert "custom_call" not in lowered.as_text()
        # Most of the time is XLA's, for programs that are run once.
        return lowered.compile({"xla_backend_optimization_level": 0})(*arguments)

    return run


@pytest.fixture(scope="session")
def on_iree() -> Callable[..., list[Any]]:
    """What a JAX function gives of arrays through all of the compiler, call after call on all threads."""
    import iree.runtime as rt
    import jax

    from sonew_compiled import passes
    from sonew_compiled.lowering.iree import lower_iree
    from sonew_compiled.lowering.lower import adapt
    from sonew_compiled.lowering.targets import pin_host, resolve_target
    from sonew_compiled.trace import trace_function

    def run(
        function: Callable[..., Any], *arguments: Any, target: str = "cpu", precision: str = "f32", times: int = 1
    ) -> list[Any]:
        module = passes.parse(trace_function(function, arguments))
        passes.run_pipeline(module, passes.pipeline(passes.precision_policy(precision)))
        chosen = pin_host(resolve_target(target))
        code = lower_iree(adapt(passes.to_portable_artifact(module), chosen, what="a test"), chosen, what="a test")
        device, instance = open_device("local-task"), rt.VmInstance()
        loaded = rt.VmModule.copy_buffer(instance, code)
        context = rt.VmContext(instance, [rt.create_hal_module(instance, device.hal), loaded])
        shapes, tree = jax.tree.flatten(jax.eval_shape(function, *arguments))
        given = rt.VmVariantList(len(arguments))
        for each in arguments:
            given.push_ref(device.upload(np.asarray(each)))
        gotten = []
        for _ in range(times):
            results = rt.VmVariantList(len(shapes))
            context.invoke(loaded.lookup_function("predict"), given, results)
            buffers = [results.get_as_object(index, rt.HalBufferView) for index in range(len(shapes))]
            arrays = [device.download(b, s.dtype, s.shape) for b, s in zip(buffers, shapes, strict=True)]
            gotten.append(tree.unflatten(arrays))
        return gotten

    return run


@pytest.fixture
def full_disk() -> Callable[..., AbstractContextManager[None]]:
    """`with full_disk(after=N):` no file can grow beyond N bytes, as on a disk that is full."""

    @contextmanager
    def limited(after: int) -> Iterator[None]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (after, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limited


@pytest.fixture(scope="session")
def load_tool() -> Callable[[str], ModuleType]:
    """A program of `tools/` as a module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Calls something that must be refused with exactly this kind of error, and gives its one line."""

    def refused(kind: type[SonewError], call: Callable[[], object]) -> str:
        with pytest.raises(SonewError) as caught:
            call()
        assert type(caught.value) is kind, caught.value
        message = str(caught.value)
        assert message
        assert "\n" not in message
        return message

    return refused


# A linear autoencoder of 36 pixels, as a user would write one: small enough for a step of well under a millisecond.
SMALL_MODEL = """
import jax
import jax.numpy as jnp

from sonew_compiled import Model


def init(key):
    down, up = jax.random.split(key)
    return {"down": 0.3 * jax.random.normal(down, (36, 5)), "up": 0.3 * jax.random.normal(up, (5, 36))}


def predict(params, batch):
    return batch["image"] @ params["down"] @ params["up"]


def loss(params, batch):
    return jnp.mean(jnp.sum((predict(params, batch) - batch["image"]) ** 2, axis=-1))


def batch(size):
    return {"image": jax.ShapeDtypeStruct((size, 36), jnp.float32)}


model = Model(init=init, loss=loss, predict=predict, batch=batch)
"""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command line ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        return json.loads(self.out)


@dataclass(frozen=True, kw_only=True)
class Small:
    """A user's folder: `small_model.py`, `data.npz` with 9 batches an epoch, and the `bundle` of the two."""

    path: Path
    bundle: Path
    data: Path
    compiled: Result


def sonew_script() -> Path:
    """The command line, installed beside this Python."""
    return Path(sys.executable).parent / "sonew"


def sonew_process(*args: object, cwd: Path, env: Mapping[str, str] | None = None) -> Result:
    """Runs the command line in a process of its own."""
    process = subprocess.run(
        [sonew_script(), *map(str, args)], cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True
    )
    return Result(code=process.returncode, out=process.stdout, err=process.stderr)


@pytest.fixture(scope="session")
def sonew_apart() -> Callable[..., Result]:
    """Runs the command line in a process of its own."""
    return sonew_process


@pytest.fixture
def sonew(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command line in this process, through the console script's own function."""
    from sonew_compiled.cli import main

    def run(*args: object) -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["sonew", *map(str, args)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(code=ended.value.code, out=captured.out, err=captured.err)

    return run


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small model, compiled for the CPU with batches of 20; not to be changed."""
    path = tmp_path_factory.mktemp("small")
    (path / "small_model.py").write_text(SMALL_MODEL)
    rng = np.random.default_rng(0)
    images = (rng.random((205, 3)) @ rng.random((3, 36)) * 80).astype(np.uint8).reshape(-1, 6, 6)
    np.savez(path / "data.npz", train_image=images[:180], test_image=images[180:])
    compiled = sonew_process(
        *("compile", "-o", "small.bundle", "--model", "small_model:model", "--batch-size", 20, "--json"), cwd=path
    )
    assert compiled.code == 0, compiled.err
    return Small(path=path, bundle=path / "small.bundle", data=path / "data.npz", compiled=compiled)


@pytest.fixture(scope="session")
def autoencoder_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The autoencoder at full size with the shipped optimizer and batches of 300; not to be changed."""
    from sonew_compiled import compile_training
    from sonew_compiled.models import autoencoder
    from sonew_compiled.presets import optimizer_settings

    path = tmp_path_factory.mktemp("autoencoder") / "ae.bundle"
    compile_training(
        autoencoder.loss,
        autoencoder.init,
        optimizer_settings(),
        autoencoder.batch(300),
        output=path,
        predict=autoencoder.predict,
        model="autoencoder",
        check=False,
    )
    return path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, from a copy of what git would give out."""
    source = tmp_path_factory.mktemp("source")
    for name in ("sonew_compiled", "passes", "runtime"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    # `build` makes an environment with setuptools unless this one has it.
    isolation = ("--no-isolation",) if _has_setuptools() else ()
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", out, source],
        cwd=out,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    return path


def _has_setuptools() -> bool:
    try:
        return int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        return False
