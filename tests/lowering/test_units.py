"""Units for products of 16-bit numbers: code for processors and GPUs with units uses them, and `inspect` shows it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from sonew_compiled import passes
from sonew_compiled.errors import UsageError
from sonew_compiled.lowering.iree import lower_iree
from sonew_compiled.lowering.lower import adapt
from sonew_compiled.lowering.targets import iree_compile, pin_host, processor_names, resolve_target, target_names
from sonew_compiled.lowering.targets._processors import SPELLED, find_processor
from sonew_compiled.lowering.units import count_units, is_product
from sonew_compiled.lowering.vmfb import read_code
from sonew_compiled.runtime.bundle import cpu_flags

ARM_PYTHON = Path(sys.prefix) / "aarch64" / "python"

# The result has 16 bits too, for which IREE has no code on some GPUs.
MODULE = """
func.func public @predict(%a: tensor<48x96xf32>, %b: tensor<96x64xf32>) -> (tensor<48x64xf32>, tensor<64x48xbf16>) {
  %x = stablehlo.convert %a : (tensor<48x96xf32>) -> tensor<48x96xbf16>
  %w = stablehlo.convert %b : (tensor<96x64xf32>) -> tensor<96x64xbf16>
  %y = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
      : (tensor<48x96xbf16>, tensor<96x64xbf16>) -> tensor<48x64xf32>
  %z = stablehlo.dot_general %w, %x, contracting_dims = [0] x [1]
      : (tensor<96x64xbf16>, tensor<48x96xbf16>) -> tensor<64x48xbf16>
  return %y, %z : tensor<48x64xf32>, tensor<64x48xbf16>
}
"""


def compiled(name: str) -> bytes:
    target = pin_host(resolve_target(name))
    artifact = passes.to_portable_artifact(passes.parse(MODULE))
    return lower_iree(adapt(artifact, target, what="two products"), target, what="two products")


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("cpu:znver4", "vdpbf16ps"),
        ("cpu:sapphirerapids", "vdpbf16ps"),
        ("cpu:x86-64-v4", None),
        ("cpu:aarch64+bf16", "bfmmla"),
        ("cpu:neoverse-v2", "bfmmla"),
        ("cpu:neoverse-n1", None),
        ("cuda:sm_80", "mma.sync"),
        ("cuda:sm_60", None),
        ("rocm:gfx942", "v_mfma"),
        ("rocm:gfx1100", "v_wmma"),
        ("vmvx", None),
    ],
)
def test_products_of_bfloat16_use_the_units_that_there_are(name: str, instruction: str | None, tmp_path: Path) -> None:
    executable = compiled(name)
    units = count_units(executable)
    assert set(filter(is_product, units)) == ({instruction} if instruction else set())
    # Debian's disassembler, which is independent of our reader, reads this machine's code.
    objdump = shutil.which("objdump")
    if objdump is not None and resolve_target(name).machine == "x86_64":
        counted: Counter[str] = Counter()
        for code in read_code(executable):
            (tmp_path / "code.so").write_bytes(code.content)
            command = [objdump, "-d", "-M", "att", tmp_path / "code.so"]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            counted.update(re.findall(r"\t(vdpbf16ps|vcvtneps2bf16|vcvtne2ps2bf16)", text))
        assert units == counted


def test_the_processor_that_compiles_uses_its_units() -> None:
    flags = cpu_flags()
    if flags is None:
        pytest.skip("this system has no /proc/cpuinfo")
    has_units = not {"avx512_bf16", "bf16"}.isdisjoint(flags)
    assert any(map(is_product, count_units(compiled("cpu")))) == has_units


def test_a_disassembler_sees_as_many_roundings(tmp_path: Path) -> None:
    # GNU assembler's encodings, with registers from both halves of the set, masks, zeroing and a broadcast from memory.
    code = bytes.fromhex(
        "62f26e4852cb"  # vdpbf16ps %zmm3, %zmm2, %zmm1
        "62020640d200"  # no such instruction: another opcode
        "6222965052ff"  # W1
        "62220ed752ff"  # vdpbf16ps %zmm31, %zmm30, %zmm31{%k7}{z}
        "62f27e4872ca"  # vcvtneps2bf16 %zmm2, %ymm1
        "62f26f4872cb"  # vcvtne2ps2bf16 %zmm3, %zmm2, %zmm1
    )
    from sonew_compiled.lowering.units import _of_x86_64
    from sonew_compiled.lowering.vmfb import Code

    header = bytearray(64 + 56)
    header[:4] = b"\x7fELF"
    header[32:40] = (64).to_bytes(8, "little")
    header[54:58] = (56).to_bytes(2, "little") + (1).to_bytes(2, "little")
    segment = [(1).to_bytes(4, "little"), (1).to_bytes(4, "little"), (120).to_bytes(8, "little"), bytes(16)]
    header[64 : 64 + 40] = b"".join((*segment, len(code).to_bytes(8, "little")))
    elf = Code(kind="elf", architecture="x86_64", kernels=(), content=bytes(header) + code)
    assert Counter(_of_x86_64(elf)) == {"vdpbf16ps": 2, "vcvtneps2bf16": 1, "vcvtne2ps2bf16": 1}


RUN = """
import json, sys
import iree.runtime as rt
import numpy as np
config = rt.Config("local-sync")
modules = [rt.create_hal_module(config.vm_instance, config.device),
           rt.VmModule.copy_buffer(config.vm_instance, open("module.vmfb", "rb").read())]
function = rt.SystemContext(vm_modules=modules, config=config).modules.module["predict"]
given = np.load("given.npz")
np.save("y.npy", function(given["a"], given["b"])[0].to_host())
"""


def test_arms_units_multiply_as_float64_does(tmp_path: Path) -> None:
    if not ARM_PYTHON.exists():
        pytest.skip(f"there is no {ARM_PYTHON}: tools/install_aarch64.sh makes it where Debian's packages can be had")
    (tmp_path / "module.vmfb").write_bytes(compiled("cpu:aarch64+bf16"))
    rng = np.random.default_rng(0)
    given = {"a": rng.normal(size=(48, 96)).astype(np.float32), "b": rng.normal(size=(96, 64)).astype(np.float32)}
    np.savez(tmp_path / "given.npz", **given)
    subprocess.run([ARM_PYTHON, "-c", RUN], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, check=True)
    a, b = (each.astype(ml_dtypes.bfloat16).astype(np.float64) for each in given.values())
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), a @ b, rtol=1e-5, atol=1e-5)


# --- Processors by name


def test_every_processor_has_the_features_that_the_compiler_gives_it() -> None:
    for name in processor_names():
        target = resolve_target(name)
        process = subprocess.run(
            [iree_compile(), "-", *target.flags, "--compile-to=executable-sources"],
            input="func.func @f(%x: tensor<1xf32>) -> tensor<1xf32> { return %x : tensor<1xf32> }",
            capture_output=True,
            text=True,
            check=True,
        )
        found = re.search(r'\bcpu_features = "([^"]*)"', process.stdout)
        assert found is not None
        features = {each[1:] for each in found[1].split(",") if each.startswith("+")}
        processor = find_processor(target.model)
        assert set(processor.features) == features & SPELLED[processor.machine].keys(), name


def test_features_are_added_and_asked_of_the_machine() -> None:
    target = resolve_target("cpu:aarch64+bf16")
    assert target.file == "cpu-aarch64+bf16.vmfb"
    assert (target.machine, target.cpu_features) == ("aarch64", ("bf16",))
    assert resolve_target("cpu:x86-64-v4+avx512bf16").cpu_features == tuple(
        sorted((*resolve_target("cpu:x86-64-v4").cpu_features, "avx512_bf16"))
    )
    assert {"asimddp", "bf16", "sve2"} <= set(resolve_target("cpu:neoverse-n2").cpu_features)
    # A feature that the processor has already adds nothing.
    assert resolve_target("cpu:znver4+fma").cpu_features == resolve_target("cpu:znver4").cpu_features


def test_what_can_be_named_is_listed_and_is_not_in_all(sonew: Any) -> None:
    assert not set(processor_names()) & set(target_names())
    listed = sonew("targets")
    assert listed.code == 0
    for name in processor_names():
        assert name.partition(":")[2] in " ".join(listed.out.split())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cpu:znver9", "unknown target 'cpu:znver9'; give one of cpu:x86-64-v4,"),
        ("cpu:aarch64+bf61", "unknown feature 'bf61' of target cpu:aarch64+bf61; give some of bf16, complxnum,"),
        ("cpu:riscv64+v", "unknown feature 'v' of target cpu:riscv64+v; riscv64 takes none"),
        ("cpu:+bf16", "unknown target 'cpu:+bf16'"),
        ("vulkan:ada+bf16", "unknown target 'vulkan:ada+bf16'"),
    ],
)
def test_other_names_are_refused(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        resolve_target(name)


@pytest.mark.parametrize("kept", [0, 10, 1000])
def test_inspect_says_what_is_no_executable(bundle_copy: Path, sonew: Any, kept: int) -> None:
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    target = manifest["targets"][0]
    path = bundle_copy / target["file"]
    content = path.read_bytes()[:kept] + b"nothing"
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][target["file"]] |= {"size": len(content), "sha256": digest}
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    result = sonew("inspect", bundle_copy)
    assert result.code == 0, result.err
    assert f"{target['name']}: its code cannot be read" in result.out
    assert json.loads(sonew("inspect", bundle_copy, "--json").out)["units"][target["name"]] is None


def test_inspect_says_which_units_the_code_uses(small: Any, sonew: Any, sonew_apart: Any, tmp_path: Path) -> None:
    bundle = tmp_path / "b.bundle"
    options = ("--model", "small_model:model", "--batch-size", 16, "--optimizer", "sgd", "--precision", "bf16")
    targets = ("--target", "cpu:cooperlake", "--target", "cpu:haswell")
    made = sonew_apart("compile", *options, *targets, "-o", bundle, cwd=small.path)
    assert made.code == 0, made.err
    assert re.search(r"cpu:cooperlake: 16-bit units: .*\d+ vdpbf16ps", sonew("inspect", bundle).out)
    units = json.loads(sonew("inspect", bundle, "--json").out)["units"]
    assert units["cpu:cooperlake"]["vdpbf16ps"] > 0
    assert units["cpu:haswell"] == {}
