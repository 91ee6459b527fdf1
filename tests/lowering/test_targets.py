"""Names of targets, and their limits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from sonew_compiled import compile_training
from sonew_compiled.errors import UsageError
from sonew_compiled.lowering import lower
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
    assert ("--iree-llvmcpu-loop-unrolling" in target.flags) == (cpu != "haswell")
    assert bool(target.verified_operation) == fills
    assert any(each.startswith(f"stream-rows:lanes={16 if wide else 8},") for each in target.passes)


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


def test_ptxas_is_looked_for_in_the_package_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "nvidia" / "cuda_nvcc" / "bin").mkdir(parents=True)
    if find_ptxas() is not None:
        pytest.skip("the package nvidia-cuda-nvcc-cu12 is installed")
    (tmp_path / "nvidia" / "cuda_nvcc" / "bin" / "ptxas").touch()
    assert find_ptxas() == str(tmp_path / "nvidia" / "cuda_nvcc" / "bin" / "ptxas")
