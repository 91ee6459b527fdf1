"""Executables for devices that are not here: their code, read back."""

import re
import shutil
import subprocess
from pathlib import Path

import iree.runtime as rt
import numpy as np
import pytest

from sonew_compiled.errors import SonewError
from sonew_compiled.lowering.iree import lower_iree
from sonew_compiled.lowering.registers import amd_kernels, assemble, kernel_figures
from sonew_compiled.lowering.targets import find_ptxas, resolve_target, target_names
from sonew_compiled.lowering.vmfb import Code, read_code
from sonew_compiled.runtime import cpu_flags, open_device

# A product and a reduction of it, which take two dispatches on every target.
MODULE = b"""
func.func @f(%x: tensor<32x64xf32>, %w: tensor<64x48xf32>) -> (tensor<32x48xf32>, tensor<32xf32>) {
  %y = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
      : (tensor<32x64xf32>, tensor<64x48xf32>) -> tensor<32x48xf32>
  %t = stablehlo.tanh %y : tensor<32x48xf32>
  %zero = stablehlo.constant dense<0.0> : tensor<f32>
  %s = stablehlo.reduce(%t init: %zero) applies stablehlo.add across dimensions = [1]
      : (tensor<32x48xf32>, tensor<f32>) -> tensor<32xf32>
  return %t, %s : tensor<32x48xf32>, tensor<32xf32>
}
"""

FORMATS = {"cpu": "elf", "vmvx": "bytecode", "vulkan": "spirv", "cuda": "ptx", "rocm": "hsaco", "metal": "msl"}
TARGETS = [name for name in target_names() if name.partition(":")[0] in FORMATS]


def codes(name: str) -> tuple[bytes, tuple[Code, ...]]:
    executable = lower_iree(MODULE, resolve_target(name), what="two dispatches")
    return executable, read_code(executable)


@pytest.mark.parametrize("name", TARGETS)
def test_the_code_is_for_the_device_that_was_named(name: str) -> None:
    executable, found = codes(name)
    family, _, model = name.partition(":")
    assert {code.kind for code in found} == {FORMATS[family]}
    if family == "cpu":
        assert {code.architecture for code in found} <= {model if not model.startswith("x86") and model else "x86_64"}
    elif family in ("cuda", "rocm"):
        assert {code.architecture for code in found} == {model}
    if family in ("vulkan", "cuda", "rocm", "metal"):
        kernels = [kernel for code in found for kernel in code.kernels]
        assert len(kernels) == len(set(kernels)) >= 2
        assert all(kernel.startswith("f_dispatch_") for kernel in kernels)
    if family == "metal":
        # The executable has the source of every dispatch, for the device's own compiler.
        assert all(f"kernel void {kernel}(" in code.content.decode() for code in found for kernel in code.kernels)
    if family == "rocm":
        figures = kernel_figures(executable)
        assert [each.name for each in figures] == [each.name for code in found for each in amd_kernels(code)]
        assert all(each.registers > 0 for each in figures)


@pytest.mark.parametrize("name", [name for name in TARGETS if name.startswith("cuda")])
def test_ptx_is_assembled_without_spills(name: str) -> None:
    ptxas = find_ptxas()
    if ptxas is None:
        pytest.skip("there is no ptxas: it comes with the extra `cuda`")
    _, found = codes(name)
    for code in found:
        figures = assemble(code, ptxas)
        if figures is None:
            pytest.skip(f"{ptxas} does not know {code.architecture}")
        assert [each.name for each in figures] == list(code.kernels)
        assert all(0 < each.registers <= 255 and each.spilled_bytes == 0 for each in figures)


@pytest.mark.parametrize("level", ["v2", "v3", "v4"])
def test_a_level_of_x86_64_runs_or_has_its_instructions(level: str, tmp_path: Path) -> None:
    target = resolve_target(f"cpu:x86-64-{level}")
    executable, (code, *_) = codes(target.name)
    if set(target.cpu_features) <= (cpu_flags() or frozenset()):
        _check_run(executable)
        return
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip(f"this processor does not have {target.name}, and there is no objdump")
    (tmp_path / "code.so").write_bytes(code.content)
    text = subprocess.run([objdump, "-d", tmp_path / "code.so"], capture_output=True, text=True, check=True).stdout
    assert re.search({"v2": "%xmm", "v3": "%ymm", "v4": "%zmm"}[level], text)


@pytest.mark.parametrize("name", [name for name in TARGETS if name.startswith("cuda")][:1])
def test_runs_on_a_gpu_where_there_is_one(name: str) -> None:
    try:
        open_device("cuda")
    except SonewError as error:
        pytest.skip(str(error))
    _check_run(codes(name)[0], "cuda")


def test_what_is_no_executable() -> None:
    with pytest.raises(ValueError, match="not an IREE executable"):
        read_code(b"nothing")


def _check_run(executable: bytes, device: str = "local-sync") -> None:
    config = rt.Config(device)
    modules = [
        rt.create_hal_module(config.vm_instance, config.device),
        rt.VmModule.copy_buffer(config.vm_instance, executable),
    ]
    function = rt.SystemContext(vm_modules=modules, config=config).modules.module["f"]
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(32, 64)).astype(np.float32), rng.normal(size=(64, 48)).astype(np.float32)
    y, s = (each.to_host() for each in function(x, w))
    np.testing.assert_allclose(y, np.tanh(x @ w), atol=1e-4)
    np.testing.assert_allclose(s, np.tanh(x @ w).sum(axis=1), atol=1e-3)
