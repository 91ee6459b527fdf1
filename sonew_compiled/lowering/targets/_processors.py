"""Processors by name: the instruction set of each, and the features that code for it may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sonew_compiled.errors import UsageError

X86_64, AARCH64 = "x86_64", "aarch64"

TRIPLES: Mapping[str, str] = MappingProxyType(
    {X86_64: "x86_64-unknown-linux-gnu", AARCH64: "aarch64-unknown-linux-gnu", "riscv64": "riscv64-unknown-linux-gnu"}
)

# The levels of the x86-64 psABI; each includes those before it.
_LEVELS = {
    "x86-64-v2": ("cx16", "popcnt", "sahf", "sse4.1", "sse4.2", "ssse3"),
    "x86-64-v3": ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"),
    "x86-64-v4": ("avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"),
}

# The features that Intel's servers from Ice Lake on and AMD's from Zen 4 on add to the level.
_ICE_LAKE = ("avx512bitalg", "avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512vnni", "avx512vpopcntdq", "gfni")
_NEOVERSE_N1 = ("dotprod", "fp-armv8", "fullfp16", "lse", "neon", "rcpc", "rdm")
_ARMV8_6 = (*_NEOVERSE_N1, "bf16", "complxnum", "fp16fml", "i8mm")

# The level of each processor, by LLVM's name, and the features that it adds; a test compares them with the compiler's.
_X86_64 = {
    "znver3": ("x86-64-v3", ("sse4a",)),
    "znver4": ("x86-64-v4", ("sse4a", "avx512bf16", *_ICE_LAKE)),
    "znver5": ("x86-64-v4", ("sse4a", "avx512bf16", "avxvnni", *_ICE_LAKE)),
    "haswell": ("x86-64-v3", ()),
    "skylake-avx512": ("x86-64-v4", ()),
    "cascadelake": ("x86-64-v4", ("avx512vnni",)),
    "cooperlake": ("x86-64-v4", ("avx512bf16", "avx512vnni")),
    "icelake-server": ("x86-64-v4", _ICE_LAKE),
    "sapphirerapids": ("x86-64-v4", ("avx512bf16", "avx512fp16", "avxvnni", *_ICE_LAKE)),
}
_AARCH64 = {
    "neoverse-n1": _NEOVERSE_N1,
    "neoverse-v1": (*_ARMV8_6, "sve"),
    "neoverse-v2": (*_ARMV8_6, "sve", "sve2"),
    "neoverse-n2": (*_ARMV8_6, "sve", "sve2"),
    "ampere1": _ARMV8_6,
    "apple-m1": (*_NEOVERSE_N1, "complxnum", "fp16fml"),
}

# The features that numerical code may use, by LLVM's names, each with its spelling in `/proc/cpuinfo`.
SPELLED: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        X86_64: {
            **{name: name for names in _LEVELS.values() for name in names},
            **{name: name for name in ("avx512ifma", "avx512vbmi", "gfni", "sse4a")},
            **{f"avx512{name}": f"avx512_{name}" for name in ("bf16", "bitalg", "fp16", "vbmi2", "vnni", "vpopcntdq")},
            "avxvnni": "avx_vnni",
            "bmi": "bmi1",
            "lzcnt": "abm",
            "sahf": "lahf_lm",
            "sse4.1": "sse4_1",
            "sse4.2": "sse4_2",
        },
        AARCH64: {
            **{name: name for name in ("bf16", "i8mm", "sve", "sve2")},
            "complxnum": "fcma",
            "dotprod": "asimddp",
            "fp-armv8": "fp",
            "fp16fml": "asimdfhm",
            "fullfp16": "asimdhp",
            "lse": "atomics",
            "neon": "asimd",
            "rcpc": "lrcpc",
            "rdm": "asimdrdm",
        },
    }
)


@dataclass(frozen=True, kw_only=True)
class Processor:
    """A processor, or all processors that have certain features.

    Attributes:
      machine: its instruction set, as `platform.machine()` names it on Linux.
      cpu: LLVM's name.
      features: the features that code for it may use, by LLVM's names.
      added: the features that the name does not imply.
    """

    machine: str
    cpu: str
    features: tuple[str, ...]
    added: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """The features as `/proc/cpuinfo` spells them."""
        spelled = SPELLED.get(self.machine, {})
        return tuple(sorted(spelled[each] for each in self.features))


BASELINES = (*reversed(_LEVELS), "aarch64", "riscv64")
"""The instruction sets that many processors share, the more capable first."""

PROCESSORS = (*_X86_64, *_AARCH64)
"""The models of processor that can be named."""


def find_processor(name: str) -> Processor:
    """The processor of a name such as `x86-64-v3`, `znver4` or `aarch64+bf16`, which adds a feature.

    Raises:
      UsageError: LLVM has no feature of that name.
    """
    base, *added = name.split("+")
    assert base in (*BASELINES, *PROCESSORS)
    found = _base(base)
    spelled = SPELLED.get(found.machine, {})
    for feature in added:
        if feature not in spelled:
            accepted = ", ".join(sorted(set(spelled) - set(found.features)))
            raise UsageError(
                f"unknown feature {feature!r} of target cpu:{name}; "
                + (f"give some of {accepted}" if accepted else f"{base} takes none")
            )
    more = tuple(dict.fromkeys(each for each in added if each not in found.features))
    return Processor(machine=found.machine, cpu=found.cpu, features=(*found.features, *more), added=more)


def _base(name: str) -> Processor:
    if name in _LEVELS:
        return Processor(machine=X86_64, cpu=name, features=_of_level(name))
    if name in _X86_64:
        level, more = _X86_64[name]
        return Processor(machine=X86_64, cpu=name, features=(*_of_level(level), *more))
    if name in _AARCH64:
        return Processor(machine=AARCH64, cpu=name, features=_AARCH64[name])
    return Processor(machine=name, cpu={AARCH64: "generic", "riscv64": "generic-rv64"}[name], features=())


def _of_level(level: str) -> tuple[str, ...]:
    levels = list(_LEVELS)
    return tuple(feature for each in levels[: levels.index(level) + 1] for feature in _LEVELS[each])
