"""The plugins of IREE that a target leaves out: all that there are but its own, without a change of the code."""

import dataclasses
import re
import subprocess

import pytest

from sonew_compiled.lowering import iree
from sonew_compiled.lowering.iree import lower_iree
from sonew_compiled.lowering.targets import iree_compile, resolve_target
from sonew_compiled.lowering.targets._target import PLUGINS, only

# Large enough for a reduction, a product and arithmetic, each a dispatch.
MODULE = b"""
func.func @predict(%x: tensor<6x5xf32>, %w: tensor<5x4xf32>) -> (tensor<6x4xf32>, tensor<6xf32>) {
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %y = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
      : (tensor<6x5xf32>, tensor<5x4xf32>) -> tensor<6x4xf32>
  %s = stablehlo.reduce(%x init: %zero) applies stablehlo.add across dimensions = [1]
      : (tensor<6x5xf32>, tensor<f32>) -> tensor<6xf32>
  %t = stablehlo.tanh %y : tensor<6x4xf32>
  return %t, %s : tensor<6x4xf32>, tensor<6xf32>
}
"""


def test_every_plugin_of_the_compiler_has_a_place() -> None:
    process = subprocess.run(
        [iree_compile(), "-", "--iree-print-plugin-info", "--compile-to=input"],
        input="module {}",
        capture_output=True,
        text=True,
        check=False,
    )
    (names,) = re.findall(r"Available plugins: (.*)", process.stderr)
    assert {*names.split(", ")} == {*PLUGINS, "input_stablehlo"}


@pytest.mark.parametrize("name", ["cpu:x86-64-v3", "vmvx", "vulkan", "cuda", "rocm", "metal"])
def test_the_code_is_that_of_all_plugins(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = resolve_target(name)
    left_out = {*target.flags} & {*only()}
    assert left_out, "the target leaves nothing out"
    everything = dataclasses.replace(target, flags=tuple(each for each in target.flags if each not in left_out))
    code = lower_iree(MODULE, target, what="a test")
    monkeypatch.setattr(iree, "_WITHOUT_STABLEHLO", "--iree-plugin=input_stablehlo")
    assert code == lower_iree(MODULE, everything, what="a test")
