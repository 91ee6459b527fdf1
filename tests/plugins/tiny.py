"""A bundle written by hand, which the tests of the runtime train."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from sonew_compiled.contract import Role
from sonew_compiled.runtime import Dataset
from sonew_compiled.runtime.manifest import FileSpec, FunctionSpec, Manifest, TargetSpec, TensorSpec
from sonew_compiled.runtime.trial import remember_made_here

# A linear autoencoder of 4 pixels with momentum. Its state has three dtypes, and is donated as the compiler does it.
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
    # Damaged copies are tried in a process of their own; the bundle itself need not be.
    remember_made_here(manifest)
    return path


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that the test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))


@pytest.fixture(scope="session")
def tiny_data() -> Dataset:
    """83 training examples, which are 10 whole batches and 3 more, and 11 test examples."""
    rng = np.random.default_rng(0)
    return Dataset(
        name="tiny-data",
        train={"image": rng.random((83, 2, 2), np.float32)},
        test={"image": rng.random((11, 2, 2), np.float32)},
        fingerprint="0123456789abcdef",
    )
