"""Faults of the installed IREE that lowering and rules work around, each by a reduced module in `tests/lowering/iree/`.

If a test fails here, IREE has mended the fault, and the workaround can go (docs/internals/iree-issues.md).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import iree.compiler.ir as iree_ir
import jax
import numpy as np
import pytest
from iree import runtime as rt

from sonew_compiled.errors import SonewError
from sonew_compiled.lowering.barriers import add_barriers
from sonew_compiled.lowering.branches import part_references
from sonew_compiled.lowering.iree import lower_iree
from sonew_compiled.lowering.targets import iree_compile, resolve_target

MODULES = Path(__file__).parent / "iree"
CPU = resolve_target("cpu:x86-64-v3")

NOT_COMPILED = {
    # Of one compiler run without verification, this becomes code that computes wrong numbers.
    "convolution_of_one_place": "op inferred input/output operand #1 has shape's dimension #0 to be 4, but found 3",
    "overlapping_pool": "failed to legalize operation 'stablehlo.select_and_scatter'",
    "product_of_a_slice": "exceeded stack allocation limit of 65536 bytes",
}


def _bytes(name: str) -> bytes:
    return (MODULES / f"{name}.mlir").read_bytes()


def _by_iree_alone(name: str) -> bytes:
    command = [iree_compile(), "-", "--iree-input-type=stablehlo", *CPU.flags]
    return subprocess.run(command, input=_bytes(name), capture_output=True, check=True).stdout


def _called(executable: bytes, name: str, *arguments: np.ndarray) -> list[np.ndarray]:
    config = rt.Config("local-sync")
    context = rt.SystemContext(config=config)
    module = rt.VmModule.copy_buffer(config.vm_instance, executable)
    context.add_vm_module(module)
    results = context.modules[module.name][name](*arguments)
    return [each.to_host().copy() for each in (results if isinstance(results, Sequence) else [results])]


@pytest.mark.parametrize("name", NOT_COMPILED)
def test_iree_does_not_compile(name: str) -> None:
    with pytest.raises(SonewError) as caught:
        lower_iree(_bytes(name), CPU, what=name)
    assert NOT_COMPILED[name] in str(caught.value)


def test_a_loop_loses_a_buffer_that_it_carries_twice() -> None:
    name, seed = "loop_carries_a_buffer_twice", np.array(3, np.int32)
    with pytest.raises(IndexError, match="indirect buffer reference slot 0 is out range"):
        _called(_by_iree_alone(name), "f", seed)
    (bits,) = _called(lower_iree(_bytes(name), CPU, what=name), "f", seed)
    np.testing.assert_array_equal(bits, jax.random.bits(jax.random.key(3), 5))


def test_a_branch_loses_memory_that_it_gives_more_than_once() -> None:
    name = "branch_repeats_memory"
    arguments = [_numbers(3), _numbers(5), _numbers(3), _numbers(5), np.array(7, np.int32)]
    first, second = np.array(0, np.int32), np.array(1, np.int32)
    with pytest.raises(ValueError, match="ref is null"):
        _called(_by_iree_alone(name), "main", first, *arguments)
    mended = lower_iree(_bytes(name), CPU, what=name)
    computed = _called(mended, "main", first, *arguments)
    np.testing.assert_allclose(computed[1], np.sin(arguments[1]), rtol=1e-5)
    handed = _called(mended, "main", second, *arguments)
    for got, want in zip(handed, arguments, strict=False):
        np.testing.assert_array_equal(got, want)


def test_a_copy_runs_beside_what_it_depends_on() -> None:
    name, barrier = "concatenation_sliced", "execution_barrier("
    command = [iree_compile(), MODULES / f"{name}.mlir", "--iree-input-type=stablehlo", *CPU.flags]
    host_code = subprocess.run([*command, "--compile-to=vm"], capture_output=True, check=True).stdout
    with iree_ir.Context():
        module = iree_ir.Module.parse(host_code)
        before = str(module).count(barrier)
        add_barriers(module.operation)
        assert str(module).count(barrier) == before + 1
    x, y, w = _numbers(1000), _numbers(2000), _numbers(1000 * 1000).reshape(1000, 1000)
    half, whole = _called(lower_iree(_bytes(name), CPU, what=name), "main", x, y, w)
    np.testing.assert_allclose(whole, np.concatenate([w @ x, np.cos(y)]), atol=2e-3)
    np.testing.assert_array_equal(half, whole[500:1000])


def test_each_block_gets_a_reference_once() -> None:
    """This includes conditional branches, where each block has arguments of its own."""
    program = """vm.module @m {
      vm.func @f(%c: i32, %x: !vm.ref<!hal.buffer>, %y: !vm.ref<!hal.buffer>) {
        vm.cond_br %c, ^bb1(%x, %y, %c : !vm.ref<!hal.buffer>, !vm.ref<!hal.buffer>, i32),
          ^bb2(%y, %x, %y, %y, %c, %c : !vm.ref<!hal.buffer>, !vm.ref<!hal.buffer>, !vm.ref<!hal.buffer>,
            !vm.ref<!hal.buffer>, i32, i32)
      ^bb1(%0: !vm.ref<!hal.buffer>, %1: !vm.ref<!hal.buffer>, %2: i32):
        vm.return
      ^bb2(%3: !vm.ref<!hal.buffer>, %4: !vm.ref<!hal.buffer>, %5: !vm.ref<!hal.buffer>, %6: !vm.ref<!hal.buffer>,
          %7: i32, %8: i32):
        vm.return
      }
    }"""
    with iree_ir.Context():
        module = iree_ir.Module.parse(program)
        part_references(module.operation)
        text = str(module)
    assert text.count("vm.select.ref") == 2
    assert re.search(r"\^bb1\(%arg1, %arg2, %arg0 : .*\^bb2\(%arg2, %arg1, %ref, %ref_\d, %arg0, %arg0 : ", text)


def _numbers(size: int) -> np.ndarray:
    return np.linspace(-1, 1, size, dtype=np.float32)
