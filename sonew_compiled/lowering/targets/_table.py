"""The table of targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from sonew_compiled.contract import Driver
from sonew_compiled.errors import UsageError
from sonew_compiled.lowering.targets import _cpu, _processors
from sonew_compiled.lowering.targets._target import NO_CONST_EVAL, OWNERSHIP, Target, only
from sonew_compiled.lowering.targets._tools import has_libtpu

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class _Family:
    """Targets that differ only in the model of their device.

    Attributes:
      make: gives the target of a model; of `""` if the family's own name is a target.
      models: the models of device that can be named, in the order in which a machine should try them.
      named: further models that can be named and that `all` leaves out. Each is one of `models` with more features; a
        `+` adds features to either, as in `aarch64+bf16`.
      default: the model that the family's own name means; empty if that is a target of its own.
      otherwise: the advice for a device that is not listed.
    """

    make: Callable[[str], Target]
    models: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    default: str = ""
    otherwise: str = ""


def _vmvx(model: str) -> Target:
    """IREE's portable bytecode, which runs slowly on any processor."""
    assert not model
    flags = (
        *only("hal_target_local", "hal_target_vmvx"),
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=vmvx",
        NO_CONST_EVAL,
    )
    *emulation, rounding = _cpu.EMULATION
    # `expand-arithmetic` must come after 16-bit arithmetic has become float32.
    passes = (
        *OWNERSHIP,
        "widen-operands",
        "pad-windows",
        "move-unsigned",
        "saturate-conversions",
        "truncate-conversions",
        *emulation,
        "widen-integers",
        "expand-arithmetic",
        rounding,
        *_BOUNDS,
        "take-examples",
    )
    # After its passes only conversions of bfloat16 are left, which it supports.
    return Target(name="vmvx", flags=flags, passes=passes, lacks=("f16",), driver=Driver.LOCAL, jax_platform="cpu")


# The most tensors that IREE's drivers for CUDA, HIP and Metal pass to a kernel.
_FEW_TENSORS = 16
_BOUNDS = ("bound-kernels", "bound-numbers")
_LOW_BOUNDS = tuple(f"{each}:operands={_FEW_TENSORS - 2}" for each in _BOUNDS)

# Where constant expressions are computed at compile time, code for this machine computes them.
_FOLDING = ("hal_target_local", "hal_target_llvm_cpu")

# IREE's code generator for SPIR-V, which is also Metal's, has no bfloat16, and not every device has float16.
_SPIRV_PASSES = (
    *OWNERSHIP,
    "negate-sums",
    "guard-powers",
    "guard-functions",
    "reduce-angles",
    "expand-logarithms",
    "saturate-conversions",
    "widen-operands",
    "pad-windows",
    "move-unsigned",
    "emulate-contractions",
    "emulate-arithmetic",
    "emulate-bf16",
    "emulate-rounding",
    "widen-booleans",
    "fence-iotas",
    "fence-sums",
)
_VULKAN_PASSES = (*_SPIRV_PASSES, *_BOUNDS, "take-examples")


# The drivers' names for the devices of a model. Its code gives wrong results on devices with another subgroup size.
_NVIDIA = ("nvidia", "geforce", "quadro", "rtx")
_VULKAN_DEVICES = {
    "adreno": ("adreno",),
    "valhall": ("mali",),
    **dict.fromkeys(("rdna2", "rdna3", "rdna4"), ("amd", "radeon")),
    **dict.fromkeys(("turing", "ampere", "ada"), _NVIDIA),
}


def _vulkan(model: str) -> Target:
    # With indirect command buffers, IREE 3.13 records copies from undeclared bindings if an initial state has several
    # constants, such as that of rfdson.
    flags = (
        *only("hal_target_vulkan_spirv", *_FOLDING),
        "--iree-hal-target-device=vulkan",
        "--iree-hal-indirect-command-buffers=false",
    )
    if not model:  # code for every Vulkan 1.1 driver of a phone or a computer
        return Target(name="vulkan", flags=flags, passes=_VULKAN_PASSES, lacks=_SPIRV_LACKS, driver=Driver.VULKAN)
    return Target(
        name=f"vulkan:{model}",
        flags=(*flags, f"--iree-vulkan-target={model}"),
        passes=_VULKAN_PASSES,
        lacks=_SPIRV_LACKS,
        driver=Driver.VULKAN,
        device_names=_VULKAN_DEVICES[model],
    )


# The passes leave bfloat16 only where a model computes on its bits.
_SPIRV_LACKS = ("bf16",)

_GPU_PASSES = (
    *OWNERSHIP,
    "negate-sums",
    "guard-powers",
    "guard-functions",
    "saturate-conversions",
    "widen-operands",
    "pad-windows",
    "move-unsigned",
    "round-products",
    "fork-stored",
    "gather-shifts",
    "fence-scatters",
    *_LOW_BOUNDS,
    "take-examples",
)


# IREE's pipeline for reductions on GPUs does not compile some sums of products ("failed to distribute"). With this flag
# it takes another one.
_GPU_FALLBACK_FLAGS = ("--iree-codegen-llvmgpu-use-reduction-vector-distribution=false",)


# The models of device with the types that each lacks in convolutions: IREE assumes the float16 units of sm_80 on sm_75
# and sm_70, and LLVM crashes. The more capable come first, but for the newest: IREE's driver does not say which model a
# device is, and more devices run the code for sm_89.
_CUDA_MODELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sm_89": (),
        "sm_86": (),
        "sm_80": (),
        "sm_75": ("f16",),
        "sm_70": ("f16",),
        "sm_60": (),
        "sm_120": (),
        "sm_121": (),
    }
)


def _cuda(model: str) -> Target:
    flags = (
        *only("hal_target_cuda"),
        "--iree-hal-target-device=cuda",
        f"--iree-cuda-target={model}",
        NO_CONST_EVAL,
    )
    return Target(
        name=f"cuda:{model}",
        assembler="ptxas",
        flags=flags,
        fallback_flags=_GPU_FALLBACK_FLAGS,
        passes=_GPU_PASSES,
        tensors=_FEW_TENSORS,
        lacks_in_convolutions=_CUDA_MODELS[model],
        driver=Driver.CUDA,
        jax_platform="gpu",
    )


# A product of bfloat16 whose result is stored in two widths takes more shared memory than there is. With this flag
# there are two kernels instead. The flag after it is for small products of many matrices, for which LLVM crashes in its
# lowering of pointers to buffers.
_ROCM_FALLBACK_FLAGS = (
    *_GPU_FALLBACK_FLAGS,
    "--iree-dispatch-creation-fuse-multi-use=false",
    "--iree-rocdl-enable-buffer-instructions=false",
)


# The models of device, each with its number in the header of its code.
_ROCM_MODELS = {"gfx942": 0x4C, "gfx1100": 0x41}


def _rocm(model: str) -> Target:
    flags = (
        *only("hal_target_rocm"),
        "--iree-hal-target-device=hip",
        f"--iree-rocm-target={model}",
        NO_CONST_EVAL,
    )
    return Target(
        name=f"rocm:{model}",
        flags=flags,
        fallback_flags=_ROCM_FALLBACK_FLAGS,
        passes=_GPU_PASSES,
        tensors=_FEW_TENSORS,
        code_model=_ROCM_MODELS[model],
        driver=Driver.HIP,
        jax_platform="gpu",
    )


def _metal(model: str) -> Target:
    """Metal's shading language as source, which the device's own driver compiles."""
    assert not model
    return Target(
        name="metal",
        flags=(*only("hal_target_metal_spirv", *_FOLDING), "--iree-hal-target-device=metal"),
        passes=(*_SPIRV_PASSES, *_LOW_BOUNDS, "take-examples"),
        tensors=_FEW_TENSORS,
        lacks=_SPIRV_LACKS,
        driver=Driver.METAL,
    )


# The smallest topology of each generation, and the configuration in which JAX has one device for each chip, which joins
# the two cores of a v4.
_TPUS = {"v5e": ("v5e:2x2", "default"), "v4": ("v4:2x2x1", "megacore"), "v6e": ("v6e:2x2", "default")}


def _tpu(model: str) -> Target:
    topology, chip_config = _TPUS[model]
    return Target(
        name=f"tpu:{model}",
        compiler="libtpu",
        passes=("exact-contractions",),
        driver=Driver.TPU,
        jax_platform="tpu",
        topology=topology,
        chip_config=chip_config,
    )


_FAMILIES: Mapping[str, _Family] = MappingProxyType(
    {
        "cpu": _Family(
            make=_cpu.cpu_target,
            models=_processors.BASELINES,
            named=_processors.PROCESSORS,
            otherwise="cpu, on a machine like the one that shall run it, names its processor in full",
        ),
        "vmvx": _Family(make=_vmvx),
        "vulkan": _Family(
            make=_vulkan,
            models=tuple(_VULKAN_DEVICES),
            otherwise="vulkan alone is code for all of them",
        ),
        "cuda": _Family(
            make=_cuda,
            models=tuple(_CUDA_MODELS),
            default="sm_80",
            otherwise="a newer GPU runs the code of each older one",
        ),
        "rocm": _Family(make=_rocm, models=tuple(_ROCM_MODELS), default="gfx942"),
        "metal": _Family(make=_metal),
        "tpu": _Family(make=_tpu, models=tuple(_TPUS), default="v5e"),
    }
)


def target_names() -> tuple[str, ...]:
    """Every target, each under its full name, in the order in which a machine that runs several should prefer them."""
    return tuple(
        f"{family}:{model}" if model else family
        for family, each in _FAMILIES.items()
        for model in (*(() if each.default else ("",)), *each.models)
    )


def processor_names() -> tuple[str, ...]:
    """The targets that name a model of processor, which `target_names` leaves out."""
    return tuple(f"{family}:{model}" for family, each in _FAMILIES.items() for model in each.named)


def resolve_target(name: str) -> Target:
    """The target of a name such as `cpu`, `vulkan:ada` or `cuda`, which is `cuda:sm_80`; case does not matter.

    Raises:
      UsageError: there is no such target; the message lists the targets.
    """
    family, colon, model = name.lower().partition(":")
    each = _FAMILIES.get(family)
    if each is None:
        raise UsageError(f"unknown target {name!r}; give {ALL}, or one of {', '.join(target_names())}")
    if not colon:
        return each.make(each.default)
    if (model.partition("+")[0] if each.named else model) not in (*each.models, *each.named):
        names = ", ".join(f"{family}:{model}" for model in (*each.models, *each.named))
        raise UsageError(
            f"unknown target {name!r}; give {family if not names else f'one of {names}'}"
            + (f" ({each.otherwise})" if each.otherwise else "")
        )
    return each.make(model)


def resolve_targets(names: Sequence[str]) -> tuple[Target, ...]:
    """The targets of the names, each once, in their order. `all` is every target that the installed compilers support.

    Raises:
      UsageError: there is no such target, or no name is given.
    """
    if not names:
        raise UsageError("no target given; give at least one, such as 'cpu'")
    targets: dict[str, Target] = {}
    for name in names:
        for each in target_names() if name.lower() == ALL else (name,):
            target = resolve_target(each)
            if name.lower() == ALL and target.compiler == "libtpu" and not has_libtpu():
                continue
            targets.setdefault(target.name, target)
    return tuple(targets.values())
