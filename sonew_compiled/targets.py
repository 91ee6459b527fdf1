"""What a bundle can be compiled for: target names, the compiler's flags for each, and what runs the result."""

from __future__ import annotations

import functools
import importlib.util
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sonew_compiled.errors import UsageError

# The levels of the x86-64 psABI, as flags of /proc/cpuinfo; each level includes those before it.
_X86_64_LEVELS = {
    "x86-64-v2": ("cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"),
    "x86-64-v3": ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"),
    "x86-64-v4": ("avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"),
}

# LLVM's name of a feature where /proc/cpuinfo spells it otherwise (punctuation apart).
_CPUINFO_NAMES = {
    "bmi": "bmi1",
    "lzcnt": "abm",
    "pclmul": "pclmulqdq",
    "sahf": "lahf_lm",
    "sse3": "pni",
    "sha": "sha_ni",
}

_CPU_FLAGS = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    # Packed matrix products, and elementwise work fused into few large dispatches but not into the products:
    # measured on the full-size step in docs/performance.md.
    "--iree-opt-level=O3",
    "--iree-opt-data-tiling",
    "--iree-dispatch-creation-enable-aggressive-fusion=false",
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A target that `sonew compile --target` takes.

    Attributes:
      name: as the user writes it.
      flags: the flags of `iree-compile` that make its executable.
      driver: the kind of IREE device that runs it: `local`, `vulkan`, `cuda`, `hip`, `metal`.
      machine: `platform.machine()` of the machines that run it, or empty where any will do.
      cpu: the processor, as LLVM names it; empty for other kinds of device.
      cpu_features: the flags of `/proc/cpuinfo` that it needs.
    """

    name: str
    flags: tuple[str, ...]
    driver: str
    machine: str = ""
    cpu: str = ""
    cpu_features: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The name of the target's executable in a bundle."""
        return self.name.replace(":", "-") + ".vmfb"


def target_names() -> tuple[str, ...]:
    """Every name that `resolve_target` takes."""
    return tuple(_TARGETS)


def resolve_target(name: str) -> Target:
    """The target of a name such as `cpu`, `vulkan` or `cuda:sm_86`.

    Raises:
      UsageError: there is no such target; the message lists those there are.
    """
    try:
        make = _TARGETS[name]
    except KeyError:
        raise UsageError(f"unknown target {name!r}; give one of {', '.join(_TARGETS)}") from None
    return make(name)


def _host_cpu(name: str) -> Target:
    """The machine that compiles: its processor is named in full, so that the bundle says what it needs."""
    cpu, features = _resolve_host() if has_compiler() else ("", ())
    return Target(
        name=name,
        flags=(*_CPU_FLAGS, "--iree-llvmcpu-target-cpu=host"),
        driver="local",
        machine=platform.machine(),
        cpu=cpu,
        cpu_features=_as_cpuinfo(features),
    )


def _x86_64(name: str) -> Target:
    level = name.partition(":")[2]
    levels = list(_X86_64_LEVELS)
    features = [flag for step in levels[: levels.index(level) + 1] for flag in _X86_64_LEVELS[step]]
    return Target(
        name=name,
        flags=(
            *_CPU_FLAGS,
            "--iree-llvmcpu-target-triple=x86_64-unknown-linux-gnu",
            f"--iree-llvmcpu-target-cpu={level}",
        ),
        driver="local",
        machine="x86_64",
        cpu=level,
        cpu_features=tuple(sorted(features)),
    )


def _vmvx(name: str) -> Target:
    """IREE's portable bytecode: any processor, no native code, slow."""
    return Target(
        name=name,
        flags=("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=vmvx"),
        driver="local",
    )


def _vulkan(name: str) -> Target:
    return Target(name=name, flags=("--iree-hal-target-device=vulkan",), driver="vulkan")


def _cuda(name: str) -> Target:
    architecture = name.partition(":")[2] or "sm_80"
    return Target(
        name=name, flags=("--iree-hal-target-device=cuda", f"--iree-cuda-target={architecture}"), driver="cuda"
    )


def _rocm(name: str) -> Target:
    architecture = name.partition(":")[2] or "gfx942"
    return Target(name=name, flags=("--iree-hal-target-device=hip", f"--iree-rocm-target={architecture}"), driver="hip")


_TARGETS = {
    "cpu": _host_cpu,
    **{f"cpu:{level}": _x86_64 for level in _X86_64_LEVELS},
    "vmvx": _vmvx,
    "vulkan": _vulkan,
    "cuda": _cuda,
    **{f"cuda:sm_{sm}": _cuda for sm in (60, 70, 75, 80, 86, 89)},
    "rocm": _rocm,
    "rocm:gfx942": _rocm,
    "rocm:gfx1100": _rocm,
}


@functools.cache
def _resolve_host() -> tuple[str, tuple[str, ...]]:
    """The host's processor and its features, in LLVM's names, as the compiler itself detects them."""
    process = subprocess.run(
        [iree_compile(), "-", *_CPU_FLAGS, "--iree-llvmcpu-target-cpu=host", "--compile-to=executable-sources"],
        input="func.func @f(%x: tensor<1xf32>) -> tensor<1xf32> { return %x : tensor<1xf32> }",
        capture_output=True,
        text=True,
        check=True,
    )
    cpu = re.search(r'\bcpu = "([^"]*)"', process.stdout)
    features = re.search(r'\bcpu_features = "([^"]*)"', process.stdout)
    assert cpu is not None
    assert features is not None
    on: dict[str, bool] = {}
    for feature in features[1].split(","):  # a later mention of a feature overrides an earlier one
        on[feature[1:]] = feature[0] == "+"
    return cpu[1], tuple(name for name, is_on in on.items() if is_on)


def _as_cpuinfo(features: tuple[str, ...]) -> tuple[str, ...]:
    """LLVM's features in the names of this machine's `/proc/cpuinfo`; those that it does not show are left out."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ()
    flags = next((line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")), [])
    by_letters = {flag.replace("_", ""): flag for flag in flags}
    names = [_CPUINFO_NAMES.get(feature, feature) for feature in features]
    keys = [re.sub(r"[._]", "", name) for name in names]
    return tuple(sorted({by_letters[key] for key in keys if key in by_letters}))


def has_compiler() -> bool:
    """Whether this machine can make bundles: JAX and the IREE compiler are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("jax", "iree.compiler"))


def iree_compile() -> str:
    """The path of the `iree-compile` that came with the installed compiler."""
    from iree.compiler.tools.binaries import find_tool

    return str(find_tool("iree-compile"))
