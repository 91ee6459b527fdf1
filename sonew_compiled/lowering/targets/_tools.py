"""The compilers and assemblers that are installed here."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from pathlib import Path

from sonew_compiled.install import install_command, lacks
from sonew_compiled.lowering.targets._target import Target


def has_compiler() -> bool:
    """Whether this machine can make bundles: JAX and the IREE compiler are installed."""
    return not any(lacks(name) for name in ("jax", "iree.compiler"))


def has_libtpu() -> bool:
    """Whether XLA's compiler for TPUs is installed."""
    return not lacks("libtpu")


def extras_of(target: Target) -> tuple[str, ...]:
    """The extras that compile for the target on this machine."""
    return ("compile", "tpu") if target.compiler == "libtpu" and _may_have_libtpu() else ("compile",)


def why_not_compiled(target: Target) -> str:
    """The step that is missing before this machine can compile for the target; empty if it can."""
    if target.compiler == "libtpu" and not has_libtpu() and not _may_have_libtpu():
        return "to compile, use a machine with Linux on x86-64: libtpu is for no other"
    is_there = {"compile": has_compiler, "tpu": has_libtpu}
    missing = [extra for extra in extras_of(target) if not is_there[extra]()]
    return f"to compile, {install_command(*missing)}" if missing else ""


def _may_have_libtpu() -> bool:
    return (sys.platform, platform.machine()) == ("linux", "x86_64")


def iree_compile() -> str:
    """The path of the `iree-compile` that came with the installed compiler."""
    from iree.compiler.tools.binaries import find_tool

    return str(find_tool("iree-compile"))


def find_ptxas() -> str | None:
    """The path of CUDA's assembler: that of the package `nvidia-cuda-nvcc-cu12`, else the one on `PATH`, or None.

    The package's assembler comes first, since it knows every architecture that has a target. Later releases of CUDA
    have dropped the oldest architectures.
    """
    spec = importlib.util.find_spec("nvidia") if not lacks("nvidia") else None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "cuda_nvcc", "bin", "ptxas")
        if path.is_file():
            return str(path)
    return shutil.which("ptxas")
