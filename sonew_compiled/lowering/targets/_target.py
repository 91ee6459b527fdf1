"""The record of a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sonew_compiled.runtime.manifest import Needs

PLUGINS = (
    *("hal_target_cuda", "hal_target_llvm_cpu", "hal_target_local", "hal_target_metal_spirv", "hal_target_rocm"),
    *("hal_target_vmvx", "hal_target_vulkan_spirv", "input_torch", "input_tosa"),
)
"""The plugins that IREE activates unless it is told not to, but for StableHLO's, which every target needs."""


def only(*plugins: str) -> tuple[str, ...]:
    """The flags that leave out all of IREE's plugins but these and StableHLO's.

    Each of IREE's passes builds its patterns anew for every dispatch, in a time that grows with the number of
    operations that the plugins register. Without the others the compiler takes up to a quarter less time, and makes the
    same bytes.
    """
    assert {*plugins} <= {*PLUGINS}, plugins
    return tuple(f"--iree-plugin=-{each}" for each in PLUGINS if each not in plugins)


NO_CONST_EVAL = "--iree-opt-const-eval=false"
"""The flag with which constant expressions are computed when the bundle is loaded. Folded, those of the random initial
weights take a megabyte of each executable, and hold 64-bit integers, which not all SPIR-V code generators have."""


OWNERSHIP = ("stabilize-sorts", "own-operands", "fence-regions")
"""The passes that every target of IREE needs: its sorts exchange equal elements, and it misjudges who owns memory that
several values may share."""


@dataclass(frozen=True, kw_only=True)
class Target(Needs):
    """A target of `sonew compile --target`, with everything that is known of it.

    Users name it by a family such as `vulkan`, or by one model of device in a family, `cuda:sm_80`.

    Attributes:
      compiler: the compiler that makes its executable: `iree`, or `libtpu`, XLA's compiler for TPUs, an optional extra.
      assembler: the assembler that reports the registers of its kernels, if it is installed: `ptxas`, or empty.
      flags: the flags of `iree-compile`.
      fallback_flags: further flags for a second try, if the compiler refuses the module with `flags` alone.
      verified_operation: an operation of IREE that `flags` make, and that is wrong for some modules. If IREE's verifier
        refuses one, the second try is made.
      passes: the passes for this target alone, which run after the shared pipeline, each as `passes.parse_pass` reads
        it: `name:option=value`.
      tensors: the most tensors that its driver passes to a kernel.
      lacks: the element types on which its code generator fails, by MLIR's names.
      lacks_in_convolutions: likewise for convolutions alone.
      code_model: the number of the model of device in its code: `EF_AMDGPU_MACH` of an ELF file for AMD's.
      jax_platform: JAX's platform for the devices that run it; empty if it has none.
      topology: the smallest machine with TPUs of this generation, as libtpu names it; the code is for one of its chips.
      chip_config: the configuration of the cores of such a chip, as libtpu names it.
    """

    compiler: Literal["iree", "libtpu"] = "iree"
    assembler: Literal["", "ptxas"] = ""
    flags: tuple[str, ...] = ()
    fallback_flags: tuple[str, ...] = ()
    verified_operation: str = ""
    passes: tuple[str, ...] = ()
    tensors: int = 32
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
        """The part of the name after the colon, such as `sm_80`; empty if there is none."""
        return self.name.partition(":")[2]

    @property
    def file(self) -> str:
        """The name of the target's executable in a bundle."""
        return self.name.replace(":", "-") + (".vmfb" if self.compiler == "iree" else ".zip")
