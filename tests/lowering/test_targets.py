"""Names of targets, their limits, and the compiler's errors as the user sees them."""

import dataclasses
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from sonew_compiled import compile_training, passes
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.lowering import iree, lower
from sonew_compiled.lowering.targets import (
    _cpu,
    _table,
    find_ptxas,
    pin_host,
    resolve_target,
    resolve_targets,
    target_names,
)
from sonew_compiled.models.classifier import classifier
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import cpu_flags

Refusal = Callable[..., str]

# The targets that users were promised, issue by issue; removing one breaks their builds.
PROMISED = (
    *("cpu", "cpu:x86-64-v2", "cpu:x86-64-v3", "cpu:x86-64-v4", "cpu:aarch64", "cpu:riscv64", "vmvx"),
    *("vulkan", "vulkan:adreno", "vulkan:valhall", "vulkan:rdna3", "vulkan:ada", "metal"),
    *("cuda:sm_60", "cuda:sm_70", "cuda:sm_75", "cuda:sm_80", "cuda:sm_86", "cuda:sm_89", "cuda:sm_120", "cuda:sm_121"),
    *("rocm:gfx942", "rocm:gfx1100", "tpu:v5e", "tpu:v4", "tpu:v6e"),
)

ADD = b"func.func @f(%x: tensor<4xf32>) -> tensor<4xf32> { return %x : tensor<4xf32> }"


def test_every_promised_target_is_there_and_resolves_to_itself() -> None:
    assert set(PROMISED) <= set(target_names())
    for name in target_names():
        target = resolve_target(name)
        assert target.name == name
        assert target.file == name.replace(":", "-") + (".zip" if target.family == "tpu" else ".vmfb")
    assert len({resolve_target(name).file for name in target_names()}) == len(target_names())


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("cuda", "cuda:sm_80"),
        ("rocm", "rocm:gfx942"),
        ("vulkan", "vulkan"),
        ("vulkan:ADRENO", "vulkan:adreno"),
        ("CPU:x86-64-V3", "cpu:x86-64-v3"),
        ("TPU", "tpu:v5e"),
    ],
)
def test_short_names_and_capitals(name: str, full: str) -> None:
    assert resolve_target(name) == resolve_target(full)
    assert resolve_target(name).name == full


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpu", "give all, or one of cpu, cpu:x86-64-v4"),
        ("", "give all, or one of cpu"),
        ("cuda:sm_90", "give one of cuda:sm_89, cuda:sm_86"),
        ("cuda:sm_90", "a newer GPU runs the code of each older one"),
        ("cuda:", "give one of cuda:sm_89"),
        (
            "cpu:znver9",
            "give one of cpu:x86-64-v4, cpu:x86-64-v3, cpu:x86-64-v2, cpu:aarch64, cpu:riscv64, cpu:znver3, ",
        ),
        ("cpu:znver9", "cpu:apple-m1 (cpu, on a machine like"),
        ("vulkan:geforce", "vulkan:ada (vulkan alone is code for all of them)"),
        ("rocm:gfx90a", "give one of rocm:gfx942, rocm:gfx1100"),
        ("metal:m4", "give metal"),
        ("vmvx:x", "give vmvx"),
        ("tpu:v7x", "give one of tpu:v5e, tpu:v4, tpu:v6e"),
    ],
)
def test_unknown_targets_list_what_exists(refusal: Refusal, name: str, said: str) -> None:
    message = refusal(UsageError, lambda: resolve_target(name))
    assert message.startswith(f"unknown target {name!r}; ")
    assert said in message


def test_lists_of_targets_keep_their_order_and_name_each_once(refusal: Refusal) -> None:
    names = [target.name for target in resolve_targets(["vulkan", "cuda", "cpu", "cuda:sm_80", "cuda:sm_60"])]
    assert names == ["vulkan", "cuda:sm_80", "cpu", "cuda:sm_60"]
    assert "no target given" in refusal(UsageError, lambda: resolve_targets([]))


@pytest.mark.parametrize("installed", [True, False])
def test_all_is_every_target_that_can_be_compiled_here(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(_table, "has_libtpu", lambda: installed)
    everything = [target.name for target in resolve_targets(["vmvx", "all"])]
    assert everything[0] == "vmvx"
    assert sorted(everything) == sorted(name for name in target_names() if installed or not name.startswith("tpu"))


def test_resolving_never_starts_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpu, "iree_compile", lambda: pytest.fail("the compiler is slow to start"))
    assert resolve_target("cpu").cpu_features == ()
    assert len(target_names()) == len(list(map(resolve_target, target_names())))


def test_the_host_is_named_in_full() -> None:
    pinned = pin_host(resolve_target("cpu"))
    assert pinned.cpu not in ("", "host", "generic")
    flags = cpu_flags()
    if flags is not None:
        assert pinned.cpu_features
        assert set(pinned.cpu_features) <= flags
    for name in ("cpu:x86-64-v2", "vulkan"):
        assert pin_host(resolve_target(name)) == resolve_target(name)


@pytest.mark.parametrize(("cpu", "fills"), [("sapphirerapids", True), ("znver4", False), ("haswell", False)])
def test_products_fill_the_registers_of_processors_that_gain_by_it(
    monkeypatch: pytest.MonkeyPatch, cpu: str, fills: bool
) -> None:
    wide = () if cpu == "haswell" else ("avx512f",)
    monkeypatch.setattr(_cpu, "_host", lambda: (cpu, ("avx", "avx2", *wide)))
    target = pin_host(resolve_target("cpu"))
    assert target.cpu == cpu
    assert ("--iree-llvmcpu-enable-inner-tiled" in target.flags) == fills
    assert bool(target.verified_operation) == fills
    assert any(each.startswith(f"stream-rows:lanes={16 if wide else 8},") for each in target.passes)


def test_a_compiler_that_does_not_know_the_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusal: Refusal
) -> None:
    monkeypatch.setattr(_cpu, "iree_compile", lambda: program(tmp_path, "exit 3"))
    message = refusal(SonewError, lambda: _cpu._host.__wrapped__())
    assert "(exit code 3)" in message
    assert "cpu:x86-64-v3" in message


# --- What a target cannot compute


def model(**changes: Any) -> dict[str, Any]:
    """The arguments of `compile_training` for a linear model; `weights` changes them before use."""
    weights = changes.pop("weights", lambda w: w)
    dtype = changes.pop("dtype", jnp.float32)

    def loss(params: Any, batch: Any) -> jax.Array:
        return jnp.mean(jnp.sum((batch["x"] @ weights(params["w"])) ** 2, axis=-1))

    return {
        "loss": loss,
        "init": lambda key: {"w": jnp.ones((4, 4), dtype)},
        "optimizer": optimizer_settings("adam"),
        "batch": {"x": jax.ShapeDtypeStruct((2, 4), dtype)},
        **changes,
    }


def called(w: jax.Array) -> jax.Array:
    """A library function that only XLA can call."""
    return w + jax.ffi.ffi_call("whiten", jax.ShapeDtypeStruct(w.shape, w.dtype))(jax.lax.stop_gradient(w))


def halved(w: jax.Array) -> jax.Array:
    """A reduction that the passes do not emulate, since its body has a constant."""
    return w + jax.lax.reduce(jax.lax.stop_gradient(w), w.dtype.type(0), lambda a, b: a + b / 2, (0,))


@pytest.mark.parametrize(
    ("target", "changes", "said"),
    [
        ("vulkan:ada", {"dtype": jnp.bfloat16, "weights": halved}, "in bfloat16; the nearest that can is cpu"),
        ("metal", {"dtype": jnp.bfloat16, "weights": halved}, "in bfloat16; the nearest that can is cpu"),
        ("vmvx", {"dtype": jnp.float16}, "it cannot compute in float16; the nearest that can is cpu"),
        ("cpu", {"weights": called}, "it has no whiten, which only XLA can call"),
        ("cuda", {"weights": called}, "no target can"),
    ],
)
def test_what_a_target_cannot_do_is_refused_before_compiling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusal: Refusal, target: str, changes: Any, said: str
) -> None:
    monkeypatch.setattr(lower, "lower_iree", lambda *args, **kwargs: pytest.fail("compiling takes minutes"))
    arguments = model(**changes)
    message = (
        refusal(
            UsageError, lambda: compile_training(**arguments, targets=("cpu:aarch64", target), output=tmp_path / "out")
        )
        if said.startswith("it has no") or "no target can" in said
        else refusal(UsageError, lambda: compile_training(**arguments, targets=(target,), output=tmp_path / "out"))
    )
    assert "cannot do model with adam: " in message
    assert said in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["cuda:sm_70", "cuda:sm_75"])
def test_a_convolution_of_float16_is_refused_where_the_compiler_crashes(
    target: str, tmp_path: Path, refusal: Refusal
) -> None:
    def compile_classifier() -> None:
        compile_training(
            classifier.loss,
            classifier.init,
            optimizer_settings("adam"),
            classifier.batch(2),
            output=tmp_path / "bundle",
            targets=(target,),
            precision="f16-mixed",
        )

    assert "it cannot convolve float16; the nearest that can is cuda:sm_89" in refusal(UsageError, compile_classifier)


def test_double_precision_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    with jax.enable_x64(True):
        arguments = model(dtype=jnp.float64)
        message = refusal(UsageError, lambda: compile_training(**arguments, output=tmp_path / "out"))
    assert "no target computes in float64; give float32" in message


# --- Errors of the compiler


def program(folder: Path, script: str) -> str:
    """A shell script that stands in for `iree-compile`."""
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def failure(module: bytes, target: str, *flags: str) -> list[str]:
    """The lines of the error of a compilation, after checks that hold for all such errors."""
    changed = dataclasses.replace(resolve_target(target), fallback_flags=())
    changed = dataclasses.replace(changed, flags=(*changed.flags, *flags))
    with pytest.raises(SonewError) as caught:
        iree.lower_iree(module, changed, what="tiny with adam")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3, lines
    assert lines[0] == f"cannot compile tiny with adam for target {changed.name}"
    assert all(len(line) < 320 for line in lines)
    log = Path(lines[2].partition("the compiler's log is ")[2])
    text = log.read_text()
    log.unlink()
    assert "--iree-input-type=stablehlo" in text.splitlines()[0]
    return [*lines, text]


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


@pytest.mark.parametrize(("rows", "columns"), [(1, 100), (100, 1)])
def test_products_that_the_compiler_would_get_wrong_are_compiled_otherwise(rows: int, columns: int) -> None:
    module = f"""func.func @f(%x: tensor<{rows}x30xf32>, %y: tensor<30x{columns}xf32>)
        -> tensor<{rows}x{columns}xf32> {{
      %z = stablehlo.dot_general %x, %y, contracting_dims = [1] x [0]
        : (tensor<{rows}x30xf32>, tensor<30x{columns}xf32>) -> tensor<{rows}x{columns}xf32>
      return %z : tensor<{rows}x{columns}xf32>
    }}""".encode()
    assert iree.lower_iree(module, resolve_target("cpu:x86-64-v4"), what="a product")
    assert "inner_tiled" in failure(module, "cpu:x86-64-v4")[1]


def test_an_operation_that_no_target_has() -> None:
    module = b"""func.func @f(%x: tensor<4x400xf32>) -> tensor<4x400xf32> {
      %y = stablehlo.custom_call @nonsense(%x) : (tensor<4x400xf32>) -> tensor<4x400xf32>
      return %y : tensor<4x400xf32>
    }"""
    _, error, remedy, log = failure(module, "vulkan")
    assert "failed to legalize operation 'stablehlo.custom_call'" in error
    assert "nonsense" in error
    assert "try another target" in remedy
    assert "see current operation" in log


def test_an_error_of_code_generation_names_its_kernel() -> None:
    module = b"""func.func @f(%x: tensor<64x64xf32>) -> tensor<64x64xf32> {
      %y = stablehlo.dot %x, %x : (tensor<64x64xf32>, tensor<64x64xf32>) -> tensor<64x64xf32>
      return %y : tensor<64x64xf32>
    }"""
    _, error, _, _ = failure(module, "cuda", "--iree-cuda-target=sm_90")
    assert error.strip() == "missing GPU target in #hal.executable.target (in f_dispatch_0_matmul_64x64x64_f32)"


def test_text_that_is_no_module() -> None:
    assert failure(b"func.func @f(", "vmvx")[1].strip() == "expected non-function type"
    assert failure(b"ML\xefR\x0dgarbage", "vmvx")[1].strip()


def test_a_flag_that_the_compiler_does_not_have() -> None:
    _, error, _, _ = failure(ADD, "vmvx", "--iree-no-such-flag")
    assert error.strip() == "iree-compile: Unknown command line argument '--iree-no-such-flag'."


def test_a_crash_of_the_compiler() -> None:
    _, error, remedy, log = failure(ADD, "vulkan", "--iree-vulkan-target=geforce")
    assert error.strip() == "iree-compile crashed (SIGSEGV): Unknown Vulkan target 'geforce'"
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
    lines = failure(ADD, "vulkan")
    assert error in lines[1]
    assert remedy in lines[2]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("why", "  why"),
        ("other", "  why; with other flags: other"),
        # Of a long error there is room for half.
        ("<x" * 999, f"  why; with other flags: {'<x' * 60} ..."),
    ],
)
def test_the_error_of_each_try_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second: str, said: str) -> None:
    script = f'case "$*" in *--other*) echo "error: {second}" >&2;; *) echo "error: why" >&2;; esac; exit 1'
    monkeypatch.setattr(iree, "iree_compile", lambda: program(tmp_path, script))
    target = dataclasses.replace(resolve_target("vmvx"), fallback_flags=("--other",))
    with pytest.raises(SonewError) as caught:
        iree.lower_iree(ADD, target, what="tiny")
    lines = str(caught.value).splitlines()
    assert lines[1] == said
    log = Path(lines[2].partition("the compiler's log is ")[2])
    text = log.read_text()
    log.unlink()
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


def test_ptxas_is_looked_for_in_the_package_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "nvidia" / "cuda_nvcc" / "bin").mkdir(parents=True)
    if find_ptxas() is not None:
        pytest.skip("the package nvidia-cuda-nvcc-cu12 is installed")
    (tmp_path / "nvidia" / "cuda_nvcc" / "bin" / "ptxas").touch()
    assert find_ptxas() == str(tmp_path / "nvidia" / "cuda_nvcc" / "bin" / "ptxas")
