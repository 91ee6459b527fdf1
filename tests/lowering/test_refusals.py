"""Modules that the compiler refuses, crashes on or would compile wrongly, and what is said of them."""

import dataclasses
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sonew_compiled import passes
from sonew_compiled.errors import SonewError
from sonew_compiled.lowering import iree, lower
from sonew_compiled.lowering.diagnostics import first_error
from sonew_compiled.lowering.targets import (
    _cpu,
    resolve_target,
)

Refusal = Callable[..., str]

# The targets that users were promised, issue by issue; removing one breaks their builds.
ADD = b"func.func @f(%x: tensor<4xf32>) -> tensor<4xf32> { return %x : tensor<4xf32> }"


def program(folder: Path, script: str) -> str:
    """A shell script that stands in for `iree-compile`."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def failure(module: bytes, target: str, *flags: str) -> tuple[str, str, str]:
    """The error of a compilation, its remedy and the log, after checks that hold for all such errors."""
    changed = dataclasses.replace(resolve_target(target), fallback_flags=())
    changed = dataclasses.replace(changed, flags=(*changed.flags, *flags))
    with pytest.raises(SonewError) as caught:
        iree.lower_iree(module, changed, what="tiny with adam")
    error, remedy, text = said(str(caught.value), changed.name)
    assert "--iree-input-type=stablehlo" in text.splitlines()[0]
    return error, remedy, text


def said(message: str, target: str) -> tuple[str, str, str]:
    """The error, the remedy and the log, which is removed, of a message on one line."""
    begin = f"cannot compile tiny with adam for target {target}: "
    assert message.startswith(begin)
    assert len(message) < 600
    parts = re.fullmatch(r"(.*); ((?:try another|free memory).*); the compiler's log is (\S+)", message[len(begin) :])
    assert parts is not None, message
    log = Path(parts[3])
    text = log.read_text()
    log.unlink()
    return parts[1], parts[2], text


def test_products_that_fill_the_registers_are_kept_apart_from_broadcasts() -> None:
    """The first try succeeds; without the pass, the compiler refuses the module."""
    module = b"""func.func @f(%x: tensor<64x64xf32>, %b: tensor<64xf32>, %r: tensor<f32>)
        -> (tensor<64x64xf32>, tensor<64x64xf32>) {
      %bias = stablehlo.broadcast_in_dim %b, dims = [1] : (tensor<64xf32>) -> tensor<64x64xf32>
      %rate = stablehlo.broadcast_in_dim %r, dims = [] : (tensor<f32>) -> tensor<64x64xf32>
      %y = stablehlo.dot_general %x, %x, contracting_dims = [1] x [0]
        : (tensor<64x64xf32>, tensor<64x64xf32>) -> tensor<64x64xf32>
      %z = stablehlo.add %y, %bias : tensor<64x64xf32>
      %w = stablehlo.dot_general %z, %x, contracting_dims = [1] x [0]
        : (tensor<64x64xf32>, tensor<64x64xf32>) -> tensor<64x64xf32>
      %t = stablehlo.transpose %w, dims = [1, 0] : (tensor<64x64xf32>) -> tensor<64x64xf32>
      %u = stablehlo.multiply %t, %rate : tensor<64x64xf32>
      return %z, %u : tensor<64x64xf32>, tensor<64x64xf32>
    }"""
    target = dataclasses.replace(resolve_target("cpu:x86-64-v4"), fallback_flags=())
    assert "fence-contractions" in target.passes
    failure(module, "cpu:x86-64-v4")
    shared = passes.to_portable_artifact(passes.parse(module.decode()))
    assert iree.lower_iree(lower.adapt(shared, target, what="products"), target, what="products")


def test_transposed_products_are_kept_apart_from_the_numbers_of_elements() -> None:
    """Stochastic rounding of Muon's weights has such products; without the pass the compiler crashes, if not always."""
    module = b"""func.func @f(%x: tensor<4x5xf32>, %y: tensor<5x6xf32>, %q: tensor<4x4xf32>) -> tensor<6x4xf32> {
      %0 = stablehlo.dot_general %x, %y, contracting_dims = [1] x [0]
        : (tensor<4x5xf32>, tensor<5x6xf32>) -> tensor<4x6xf32>
      %1 = stablehlo.dot_general %q, %0, contracting_dims = [1] x [0]
        : (tensor<4x4xf32>, tensor<4x6xf32>) -> tensor<4x6xf32>
      %2 = stablehlo.add %1, %0 : tensor<4x6xf32>
      %3 = stablehlo.transpose %2, dims = [1, 0] : (tensor<4x6xf32>) -> tensor<6x4xf32>
      %4 = stablehlo.iota dim = 0 : tensor<6x4xf32>
      %5 = stablehlo.multiply %3, %3 : tensor<6x4xf32>
      %6 = stablehlo.add %5, %4 : tensor<6x4xf32>
      return %6 : tensor<6x4xf32>
    }"""
    target = resolve_target("cpu:x86-64-v3")
    shared = passes.to_portable_artifact(passes.parse(module.decode()))
    adapted = lower.adapt(shared, target, what="products")
    assert b"flow.tensor.clone" in adapted
    assert iree.lower_iree(adapted, target, what="products")


def test_outer_products_of_what_is_transposed_and_read_elsewhere() -> None:
    """The gradient of a layer with one output has such products under CASPR and bf16-pure."""
    module = b"""func.func @f(%x: tensor<4x1xbf16>, %y: tensor<4x1xbf16>) -> (tensor<4x4xf32>, tensor<1x4xf32>) {
      %t = stablehlo.transpose %y, dims = [1, 0] : (tensor<4x1xbf16>) -> tensor<1x4xbf16>
      %z = stablehlo.dot_general %x, %t, contracting_dims = [1] x [0]
        : (tensor<4x1xbf16>, tensor<1x4xbf16>) -> tensor<4x4xf32>
      %w = stablehlo.convert %t : (tensor<1x4xbf16>) -> tensor<1x4xf32>
      return %z, %w : tensor<4x4xf32>, tensor<1x4xf32>
    }"""
    target = resolve_target("cpu:znver5")
    assert "unresolved source materialization" in failure(module, target.name)[0]
    shared = passes.to_portable_artifact(passes.parse(module.decode()))
    assert iree.lower_iree(lower.adapt(shared, target, what="products"), target, what="products")


@pytest.mark.parametrize(("rows", "columns"), [(1, 100), (100, 1)])
def test_products_that_the_compiler_would_get_wrong_are_compiled_otherwise(rows: int, columns: int) -> None:
    module = f"""func.func @f(%x: tensor<{rows}x30xf32>, %y: tensor<30x{columns}xf32>)
        -> tensor<{rows}x{columns}xf32> {{
      %z = stablehlo.dot_general %x, %y, contracting_dims = [1] x [0]
        : (tensor<{rows}x30xf32>, tensor<30x{columns}xf32>) -> tensor<{rows}x{columns}xf32>
      return %z : tensor<{rows}x{columns}xf32>
    }}""".encode()
    assert iree.lower_iree(module, resolve_target("cpu:x86-64-v4"), what="a product")
    assert "inner_tiled" in failure(module, "cpu:x86-64-v4")[0]


def numbers(count: int) -> bytes:
    """A module whose kernel reads so many numbers, and writes as many, without `bound-numbers`."""
    arguments = ", ".join(f"%a{each}: tensor<f32>" for each in range(count))
    results = ", ".join("tensor<f32>, tensor<4xf32>" for _ in range(count))
    lines = [f"%s{each} = stablehlo.sine %a{each} : tensor<f32>" for each in range(count)]
    lines += [
        f"%v{each} = stablehlo.broadcast_in_dim %s{each}, dims = [] : (tensor<f32>) -> tensor<4xf32>"
        for each in range(count)
    ]
    returned = ", ".join(f"%s{each}, %v{each}" for each in range(count))
    return "\n".join(
        [f"func.func @f({arguments}) -> ({results}) {{", *lines, f"return {returned} : {results}\n}}"]
    ).encode()


@pytest.mark.parametrize(("target", "most"), [("cpu:aarch64", 32), ("vmvx", 32), ("vulkan", 32), ("cuda", 16)])
def test_kernels_of_more_tensors_than_the_runtime_passes(target: str, most: int) -> None:
    """The message has no log: the compiler has no fault to show."""
    chosen = resolve_target(target)
    with pytest.raises(SonewError) as caught:
        iree.lower_iree(numbers(most // 2 + 1), chosen, what="tiny with adam")
    assert str(caught.value).startswith(
        f"cannot compile tiny with adam for target {chosen.name}: its kernel f_dispatch_0_elementwise takes {most + 2} "
        f"tensors, and IREE's runtime passes {most}; compute fewer numbers at a time, with one optimizer for all "
    )
    assert iree.lower_iree(numbers(most // 2), chosen, what="tiny with adam")
    shared = passes.to_portable_artifact(passes.parse(numbers(70).decode()))
    assert iree.lower_iree(lower.adapt(shared, chosen, what="tiny"), chosen, what="tiny")


def test_an_operation_that_no_target_has() -> None:
    module = b"""func.func @f(%x: tensor<4x400xf32>) -> tensor<4x400xf32> {
      %y = stablehlo.custom_call @nonsense(%x) : (tensor<4x400xf32>) -> tensor<4x400xf32>
      return %y : tensor<4x400xf32>
    }"""
    error, remedy, log = failure(module, "vulkan")
    assert "failed to legalize operation 'stablehlo.custom_call'" in error
    assert "nonsense" in error
    assert "try another target" in remedy
    assert "see current operation" in log


def test_an_error_of_code_generation_names_its_kernel() -> None:
    module = b"""func.func @f(%x: tensor<64x64xf32>) -> tensor<64x64xf32> {
      %y = stablehlo.dot %x, %x : (tensor<64x64xf32>, tensor<64x64xf32>) -> tensor<64x64xf32>
      return %y : tensor<64x64xf32>
    }"""
    error, _, _ = failure(module, "cuda", "--iree-cuda-target=sm_90")
    assert error == "missing GPU target in #hal.executable.target (in f_dispatch_0_matmul_64x64x64_f32)"


def test_an_error_that_may_be_of_several_kernels_names_none() -> None:
    shown = 'm.mlir:1:1: note: see current operation: {sym_name = "f_dispatch_0_a"}'
    one = f"m.mlir:1:1: error: inner\nm.mlir:1:1: error: failed to run translation\n{shown}"
    assert first_error(one, 1, compiler="iree-compile") == "inner (in f_dispatch_0_a)"
    several = one + shown.replace("f_dispatch_0_a", "f_dispatch_1_b")
    assert first_error(several, 1, compiler="iree-compile") == "inner"


def test_text_that_is_no_module() -> None:
    assert failure(b"func.func @f(", "vmvx")[0] == "expected non-function type"
    assert failure(b"ML\xefR\x0dgarbage", "vmvx")[0]


def test_a_flag_that_the_compiler_does_not_have() -> None:
    error, _, _ = failure(ADD, "vmvx", "--iree-no-such-flag")
    assert error == "iree-compile: Unknown command line argument '--iree-no-such-flag'."


def test_a_crash_of_the_compiler() -> None:
    error, remedy, log = failure(ADD, "vulkan", "--iree-vulkan-target=geforce")
    assert error == "iree-compile crashed (SIGSEGV): Unknown Vulkan target 'geforce'"
    assert "try another target" in remedy
    assert "Stack dump" in log


@pytest.mark.parametrize(
    ("script", "error", "remedy"),
    [
        ("kill -SEGV $$", "iree-compile crashed (SIGSEGV)", "try another target"),
        ("echo 'LLVM ERROR: Do not know how!' >&2; kill -ABRT $$", "crashed (SIGABRT): Do not know how!", "another"),
        ("echo 'x.cpp:1: f: Assertion `y'\\'' failed.' >&2; kill -ABRT $$", "Assertion `y' failed.", "try another"),
        ("kill -KILL $$", "iree-compile was killed (SIGKILL)", "free memory"),
        ("echo \"terminate called after throwing 'std::bad_alloc'\" >&2; kill -ABRT $$", "std::bad_alloc", "free mem"),
        ("exit 7", "iree-compile ended with exit code 7 and no error message", "try another target"),
        ("printf '\\377 error: bytes\\n' >&2; exit 1", "bytes", "try another target"),
        ('python3 -c \'print("error: " + "<x" * 9999)\' >&2; exit 1', "<x ...", "try another target"),
    ],
)
def test_ways_in_which_a_compiler_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, error: str, remedy: str
) -> None:
    monkeypatch.setattr(iree, "iree_compile", lambda: program(tmp_path, script))
    found, way_out, _ = failure(ADD, "vulkan")
    assert error in found
    assert remedy in way_out


@pytest.mark.parametrize(
    ("second", "errors"),
    [
        ("why", "why"),
        ("other", "why; with other flags: other"),
        # Of a long error there is room for half.
        ("<x" * 999, f"why; with other flags: {'<x' * 60} ..."),
    ],
)
def test_the_error_of_each_try_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second: str, errors: str
) -> None:
    script = f'case "$*" in *--other*) echo "error: {second}" >&2;; *) echo "error: why" >&2;; esac; exit 1'
    monkeypatch.setattr(iree, "iree_compile", lambda: program(tmp_path, script))
    target = dataclasses.replace(resolve_target("vmvx"), fallback_flags=("--other",))
    with pytest.raises(SonewError) as caught:
        iree.lower_iree(ADD, target, what="tiny with adam")
    found, _, text = said(str(caught.value), "vmvx")
    assert found == errors
    assert "error: why" in text
    assert f"error: {second}" in text


def test_a_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    monkeypatch.setattr(iree, "iree_compile", lambda: "/no/such/compiler")
    message = refusal(SonewError, lambda: iree.lower_iree(ADD, resolve_target("vmvx"), what="tiny"))
    assert "/no/such/compiler does not start (No such file or directory)" in message


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    iree.lower_iree(ADD, resolve_target("cpu"), what="tiny")
    failure(b"func.func @f(", "cpu")
    assert not list(tmp_path.iterdir())


def test_a_compiler_that_does_not_know_the_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusal: Refusal
) -> None:
    monkeypatch.setattr(_cpu, "iree_compile", lambda: program(tmp_path, "exit 3"))
    message = refusal(SonewError, lambda: _cpu._host.__wrapped__())
    assert "(exit code 3)" in message
    assert "cpu:x86-64-v3" in message


# --- What a target cannot compute
