"""What a target is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sonew_compiled.runtime.manifest import Needs

NO_CONST_EVAL = "--iree-opt-const-eval=false"
"""Constant expressions are computed when the bundle is loaded. Folded, those of the random initial weights take a
megabyte of each executable. They hold 64-bit integers, which the code generators for SPIR-V do not all have."""


OWNERSHIP = ("own-operands", "fence-regions")
"""What every target of IREE needs done to the module first: who owns memory that several values may share is a thing
that it gets wrong."""


@dataclass(frozen=True, kw_only=True)
class Target(Needs):
    """A target that `sonew compile --target` takes: everything that is known of it.

    Its name is as the user writes it: a family such as `vulkan`, or one model of device in it, `cuda:sm_80`.

    Attributes:
      compiler: what makes its executable: `iree`, or `libtpu`, XLA's compiler for TPUs, an optional extra.
      assembler: what says what its kernels take of the device, where it is installed: `ptxas`, or empty.
      flags: those of `iree-compile`.
      fallback_flags: added in a second try where the compiler refuses the module with `flags` alone.
      verified_operation: an operation of IREE that `flags` lead to and that the compiler makes wrongly of some modules:
        where its verifier refuses one, the second try is taken.
      passes: passes that the module goes through for this target alone, after the shared pipeline, each as
        `passes.parse_pass` reads it: `name:option=value`.
      lacks: element types that its code generator fails on, by MLIR's names.
      lacks_in_convolutions: the same of convolutions alone.
      code_model: the number by which its code says the model of device: `EF_AMDGPU_MACH` of an ELF file for AMD's.
      jax_platform: what JAX calls the devices that run it; empty where it has no such platform.
      topology: the smallest machine with TPUs of this generation, as libtpu names it; the code is for one of its chips.
      chip_config: how the cores of such a chip work together, as libtpu names it.
    """

    compiler: Literal["iree", "libtpu"] = "iree"
    assembler: Literal["", "ptxas"] = ""
    flags: tuple[str, ...] = ()
    fallback_flags: tuple[str, ...] = ()
    verified_operation: str = ""
    passes: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    lacks_in_convolutions: tuple[str, ...] = ()
    code_model: int | None = None
    jax_platform: str = ""
    topology: str = ""
    chip_config: str = ""

    @property
    def family(self) -> str:
        """The part of the name before the colon."""
        return self.name.partition(":")[0]

    @property
    def model(self) -> str:
        """The part of the name after the colon, such as `sm_80`; empty where there is none."""
        return self.name.partition(":")[2]

    @property
    def file(self) -> str:
        """The name of the target's executable in a bundle."""
        return self.name.replace(":", "-") + (".vmfb" if self.compiler == "iree" else ".zip")
