"""How far JAX's results move with the last places of the inputs, of those stored in 16 bits too."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from sonew_compiled import passes
from sonew_compiled.check._reference import Call, _artifact, _Function
from sonew_compiled.compile import compile_training
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import open_bundle
from sonew_compiled.runtime.manifest import FunctionSpec, TensorSpec

MODULE = """
func.func public @eval_step(%x: tensor<4000xbf16>) -> (tensor<4000xf32>, tensor<4000xf32>) {
  %wide = stablehlo.convert %x : (tensor<4000xbf16>) -> tensor<4000xf32>
  %large = stablehlo.constant dense<1.0e6> : tensor<4000xf32>
  %product = stablehlo.multiply %wide, %large : tensor<4000xf32>
  %wave = stablehlo.sine %product : tensor<4000xf32>
  return %wide, %wave : tensor<4000xf32>, tensor<4000xf32>
}
"""
SHAPES = {"x": (8, 5), "products": (5, 5)}


def call_on_bfloat16() -> Call:
    artifact = passes.to_portable_artifact(passes.parse(MODULE))
    given = TensorSpec(name="x", shape=(4000,), dtype="bfloat16", role=None)
    wide, wave = (TensorSpec(name=name, shape=(4000,), dtype="float32", role=None) for name in ("wide", "wave"))
    spec = FunctionSpec(inputs=(given,), outputs=(wide, wave))
    make = partial(_artifact, artifact, "eval_step", spec)
    function = _Function(spec, make(), partial(make, moves=True))
    inputs = {"x": np.linspace(1, 2, 4000).astype(ml_dtypes.bfloat16)}
    return Call(function="eval_step", inputs=inputs, results=function(inputs), again=function)


def test_state_in_16_bits_moves_in_the_last_places_of_float32_before_a_result_is_called_wrong() -> None:
    call = call_on_bfloat16()
    assert not call.movement("wave").any()
    call.move_further()
    moved = call.movement("wide") / call.results["wide"]
    assert 2.0**-22 < moved.max() <= 2.0**-21 + 2.0**-24
    assert (moved > 0).mean() > 0.9
    assert np.quantile(call.movement("wave"), 0.05) > 0.01


def test_each_change_of_16_bit_state_is_another() -> None:
    call = call_on_bfloat16()
    call.move_further()
    call.move_further()
    moved = [each["wide"].tobytes() for each in call.moved]
    assert len(set(moved[1:])) == len(moved) - 1 > 5
    signs = np.sign(call.moved[1]["wide"] - call.results["wide"])
    assert abs(signs.mean()) < 0.1  # as many up as down


def test_products_in_16_bits_move_in_the_last_places_of_float32() -> None:
    """Their operands are rounded, so that no change of the inputs reaches them: Shampoo's roots under bf16-mixed."""
    module = """
    func.func public @eval_step(%x: tensor<8x5xf32>) -> tensor<5x5xf32> {
      %0 = func.call @products(%x) : (tensor<8x5xf32>) -> tensor<5x5xf32>
      return %0 : tensor<5x5xf32>
    }
    func.func private @products(%x: tensor<8x5xf32>) -> tensor<5x5xf32> {
      %0 = stablehlo.convert %x : (tensor<8x5xf32>) -> tensor<8x5xbf16>
      %1 = stablehlo.dot_general %0, %0, contracting_dims = [0] x [0]
        : (tensor<8x5xbf16>, tensor<8x5xbf16>) -> tensor<5x5xf32>
      return %1 : tensor<5x5xf32>
    }"""
    artifact = passes.to_portable_artifact(passes.parse(module))
    given, got = (TensorSpec(name=name, shape=shape, dtype="float32", role=None) for name, shape in SHAPES.items())
    spec = FunctionSpec(inputs=(given,), outputs=(got,))
    make = partial(_artifact, artifact, "eval_step", spec)
    function = _Function(spec, make(), partial(make, moves=True))
    inputs = {"x": np.random.default_rng(0).integers(1, 9, (8, 5)).astype(np.float32)}
    call = Call(function="eval_step", inputs=inputs, results=function(inputs), again=function)
    assert not call.movement("products").any()
    call.move_further()
    moved = call.movement("products") / call.results["products"]
    assert moved.min() > 0
    assert moved.max() <= 2.0**-21 + 2.0**-24


def test_what_rounding_alone_decides_is_not_called_wrong(tmp_path: Path) -> None:
    """Where all gradients of a matrix are equal, an edge's Schur complement is what rounding leaves of zero."""

    def equal(params: Any, batch: Any) -> jax.Array:
        return jnp.mean(batch["x"]) * jnp.sum(params["w"]) + 0 * jnp.sum(params["v"])

    compile_training(
        loss=equal,
        init=lambda key: {"w": jnp.zeros((4, 4)), "v": jax.random.normal(key, (4, 4))},
        batch={"x": jax.ShapeDtypeStruct((8, 5), jnp.float32)},
        optimizer=optimizer_settings("tridiag-sonew"),
        output=tmp_path / "bundle",
    )
    open_bundle(tmp_path / "bundle").verify()
