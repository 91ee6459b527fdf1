"""Processor targets: the levels of x86-64, other instruction sets, and the processor of the machine that compiles."""

from __future__ import annotations

import dataclasses
import functools
import platform
import re
import subprocess
from collections.abc import Collection
from pathlib import Path

from sonew_compiled.contract import Driver
from sonew_compiled.errors import SonewError
from sonew_compiled.lowering.targets._processors import TRIPLES, find_processor
from sonew_compiled.lowering.targets._target import NO_CONST_EVAL, OWNERSHIP, Target, only
from sonew_compiled.lowering.targets._tools import iree_compile

# LLVM's names of the features that /proc/cpuinfo spells differently, punctuation aside.
_CPUINFO_NAMES = {
    "x86_64": {
        "bmi": "bmi1",
        "lzcnt": "abm",
        "pclmul": "pclmulqdq",
        "sahf": "lahf_lm",
        "sse3": "pni",
        "sha": "sha_ni",
    },
    "aarch64": {
        "crc": "crc32",
        "dotprod": "asimddp",
        "fp-armv8": "fp",
        "fullfp16": "asimdhp",
        "lse": "atomics",
        "neon": "asimd",
        "rdm": "asimdrdm",
    },
}

_FLAGS = (
    *only("hal_target_local", "hal_target_llvm_cpu"),
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    # These three flags pack matrix products, and fuse elementwise work into few large dispatches but not into the
    # products. Without them the full-size autoencoder's step takes 40 % longer.
    "--iree-opt-level=O3",
    "--iree-opt-data-tiling",
    "--iree-dispatch-creation-enable-aggressive-fusion=false",
    # The line buffers of `stream-rows` need this stack; a worker of the runtime has 128 KiB.
    "--iree-llvmcpu-stack-allocation-limit=64KiB",
    # Debug symbols are a fifth of the executable, and name the folder in which `lower` compiles.
    "--iree-llvmcpu-debug-symbols=false",
    # Otherwise constants that only `init` needs, such as counters of random numbers, are computed at each load, and
    # kept.
    "--iree-opt-const-expr-hoisting=false",
    NO_CONST_EVAL,
)

# With the default of 64 KiB, packing and unpacking matrix products of some shapes (the autoencoder in batches other
# than 1000) takes more stack than the compiler allows. A quarter of that always fits, but makes the step a third
# slower.
_FALLBACK_FLAGS = ("--iree-llvmcpu-matmul-tile-bytes=16384",)

# The accumulators of matrix products then fill all 32 registers of 512 bits, and not half of them. Products are a
# quarter to a half faster on Intel's servers, whose caches are slow; the step is a fourteenth slower on AMD's (Zen 4).
# `fence-contractions` keeps apart from the products what IREE 3.13 then cannot compile. IREE compiles a product with a
# vector wrongly, and only its verifier shows that.
_INNER_TILED = "--iree-llvmcpu-enable-inner-tiled"
_INNER_TILED_OPERATION = "iree_codegen.inner_tiled"
_HALF_IS_ENOUGH = "znver"

# On Zen 5 a step takes 0.99 of the time for the autoencoder in float32, 0.98 for the GPT, and as much as before under
# bf16. With vectors of 256 bits nothing is gained, and with shorter ones a step is slower.
_UNROLLED = "--iree-llvmcpu-loop-unrolling"

_HOST = "--iree-llvmcpu-target-cpu=host"

# Linux distributions for RISC-V require these extensions (RV64GC).
_RISCV_FLAGS = ("--iree-llvmcpu-target-abi=lp64d", "--iree-llvmcpu-target-cpu-features=+m,+a,+f,+d,+c")

EMULATION = ("emulate-contractions", "emulate-arithmetic", "emulate-rounding")
"""The passes that processors and IREE's bytecode need.

IREE's code for 16-bit operands is much slower than for float32 ones if the processor has no units for them. IREE omits
some of the roundings of 16-bit arithmetic, and its bytecode has no such arithmetic.
"""


# LLVM's names of the features for vectors of 512 bits, for rounding vectors of float32 to bfloat16, and, on x86-64 and
# on Arm, for products of bfloat16 with float32 sums. IREE 3.13 does not use Intel's AMX.
_WIDE = "avx512f"
_ROUNDS_BF16 = "avx512bf16"
_MULTIPLIES_BF16 = ("avx512bf16", "bf16")

# Stores that bypass the caches have been measured on processors with this feature, and not on Arm's.
_BYPASSING = "avx"
# A matrix of this many bytes, with its gradients and its state, exceeds a core's own caches and its share of the shared
# ones. The results of a kernel are no longer cached when the next kernel reads them.
_BYPASS = 16 << 20


def _for_processor(target: Target, cpu: str, features: Collection[str]) -> Target:
    """The target with the flags and the passes for a processor, both by LLVM's names."""
    if _WIDE in features:
        target = dataclasses.replace(target, flags=(*target.flags, _UNROLLED))
    if _WIDE in features and not cpu.startswith(_HALF_IS_ENOUGH):
        target = dataclasses.replace(
            target,
            flags=(*target.flags, _INNER_TILED),
            fallback_flags=(*target.fallback_flags, f"{_INNER_TILED}=false"),
            verified_operation=_INNER_TILED_OPERATION,
        )
    return dataclasses.replace(target, passes=_passes(features))


def _passes(features: Collection[str]) -> tuple[str, ...]:
    """The passes for processors with these features, in LLVM's names.

    A vector takes two registers if these are small. The kernels round by conversions, which must not be expanded, so
    `emulate-rounding` comes after `stream-rows`.
    """
    lanes = 16 if _WIDE in features else 8
    kernels = f"stream-rows:lanes={lanes}"
    if _ROUNDS_BF16 in features:
        kernels += ",native_bf16=1"
    products: tuple[str, ...] = ("emulate-contractions",)
    rounding = "emulate-rounding"
    if not {*_MULTIPLIES_BF16}.isdisjoint(features):
        products = ("round-products", "emulate-contractions:native=bf16")
        rounding += ":native=bf16"
    if _BYPASSING in features:
        kernels += f",bypass={_BYPASS}"
    return (
        "unroll-loops",
        "forward-rows",
        "join-products",
        *OWNERSHIP,
        "guard-powers",
        "guard-functions",
        "reduce-angles",
        "widen-operands",
        "pad-windows",
        "move-unsigned",
        "unfold-convolutions",
        *products,
        "emulate-arithmetic",
        "drop-roundings",
        kernels,
        "saturate-conversions",
        "order-sums",
        "flatten-contractions",
        "fence-contractions",
        "fence-elements",
        "fence-widenings",
        rounding,
        "bound-kernels",
        "bound-numbers",
        f"take-examples:lanes={lanes}",
    )


def cpu_target(model: str) -> Target:
    """The target `cpu`, or `cpu:<model>` for a model that `find_processor` takes.

    Raises:
      UsageError: there is no such feature.
    """
    if not model:
        return Target(
            name="cpu",
            flags=(*_FLAGS, _HOST),
            fallback_flags=_FALLBACK_FLAGS,
            passes=_passes(()),
            driver=Driver.LOCAL,
            jax_platform="cpu",
            machine=platform.machine(),
        )
    processor = find_processor(model)
    flags = [f"--iree-llvmcpu-target-triple={TRIPLES[processor.machine]}", f"--iree-llvmcpu-target-cpu={processor.cpu}"]
    if processor.machine == "riscv64":
        flags += _RISCV_FLAGS
    if processor.added:
        flags.append(f"--iree-llvmcpu-target-cpu-features={','.join(f'+{each}' for each in processor.added)}")
    target = Target(
        name=f"cpu:{model}",
        flags=(*_FLAGS, *flags),
        fallback_flags=_FALLBACK_FLAGS,
        driver=Driver.LOCAL,
        jax_platform="cpu",
        machine=processor.machine,
        cpu=processor.cpu,
        cpu_features=processor.flags,
    )
    return _for_processor(target, processor.cpu, processor.features)


def pin_host(target: Target) -> Target:
    """The target; `cpu` becomes the processor of this machine, named in full, so that the bundle says what it needs.

    Its flags and passes then fit that processor's vectors. The compiler is asked for the processor, which takes a third
    of a second.

    Raises:
      SonewError: the compiler does not name the processor.
    """
    if _HOST not in target.flags:
        return target
    cpu, features = _host()
    described = dataclasses.replace(target, cpu=cpu, cpu_features=_as_cpuinfo(features))
    return _for_processor(described, cpu, features)


@functools.cache
def _host() -> tuple[str, tuple[str, ...]]:
    """The host's processor and its features, in LLVM's names, as the compiler itself detects them."""
    process = subprocess.run(
        [iree_compile(), "-", *_FLAGS, _HOST, "--compile-to=executable-sources"],
        input="func.func @f(%x: tensor<1xf32>) -> tensor<1xf32> { return %x : tensor<1xf32> }",
        capture_output=True,
        text=True,
        check=False,
    )
    cpu = re.search(r'\bcpu = "([^"]*)"', process.stdout)
    features = re.search(r'\bcpu_features = "([^"]*)"', process.stdout)
    if cpu is None or features is None:
        raise SonewError(
            f"iree-compile (exit code {process.returncode}) does not say which processor this machine has; "
            "give its instruction set, such as --target cpu:x86-64-v3"
        )
    on: dict[str, bool] = {}
    for feature in features[1].split(","):  # a later mention of a feature overrides an earlier one
        on[feature[1:]] = feature[0] == "+"
    return cpu[1], tuple(name for name, is_on in on.items() if is_on)


def _as_cpuinfo(features: tuple[str, ...]) -> tuple[str, ...]:
    """LLVM's features by their names in this machine's `/proc/cpuinfo`, without those that it does not show."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ()
    lines = (line for line in text.splitlines() if line.startswith(("flags", "Features")))
    by_letters = {flag.replace("_", ""): flag for flag in next(lines, "").partition(":")[2].split()}
    spelled = _CPUINFO_NAMES.get(platform.machine(), {})
    keys = [re.sub(r"[._]", "", spelled.get(feature, feature)) for feature in features]
    return tuple(sorted({by_letters[key] for key in keys if key in by_letters}))
