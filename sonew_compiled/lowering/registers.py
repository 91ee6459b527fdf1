"""The registers of a GPU's kernels, as its assembler reports them without a GPU."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from sonew_compiled.errors import SonewError
from sonew_compiled.lowering.targets import find_ptxas
from sonew_compiled.lowering.vmfb import Code, amd_metadata, read_code
from sonew_compiled.runtime.manifest import KernelSpec

_PTXAS_KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '\w+'\n"
    r".*\n"  # Function properties for ...
    r".*stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r".*Used (?P<registers>\d+) registers"
)


def kernel_figures(executable: bytes) -> tuple[KernelSpec, ...]:
    """The figures of every kernel of a `.vmfb` for CUDA or ROCm.

    It is empty for other devices, and for CUDA if no assembler is installed or it does not know the GPU.

    Raises:
      SonewError: the assembler refuses the code.
    """
    figures: list[KernelSpec] = []
    for code in read_code(executable):
        if code.kind == "hsaco":
            figures.extend(amd_kernels(code))
        elif code.kind == "ptx" and (ptxas := find_ptxas()) is not None:
            figures.extend(assemble(code, ptxas) or ())
    return tuple(figures)


def amd_kernels(code: Code) -> tuple[KernelSpec, ...]:
    """The kernels of a `hsaco`, from its metadata."""
    return tuple(
        KernelSpec(name=kernel[".name"], registers=kernel[".vgpr_count"], spilled_bytes=4 * kernel[".vgpr_spill_count"])
        for kernel in amd_metadata(code.content).get("amdhsa.kernels", [])
    )


def assemble(code: Code, ptxas: str) -> tuple[KernelSpec, ...] | None:
    """Assembles `ptx` for the GPU that it names, and reads the assembler's figures of its kernels.

    Returns:
      The kernels in the code's order; None if this release of CUDA does not know the GPU.

    Raises:
      SonewError: the assembler refuses the code, with its first error.
    """
    assert code.kind == "ptx"
    with tempfile.TemporaryDirectory(prefix="sonew-") as scratch:
        source = Path(scratch, "kernels.ptx")
        source.write_bytes(code.content)
        process = subprocess.run(
            [ptxas, "--verbose", f"--gpu-name={code.architecture}", str(source), "-o", str(Path(scratch, "kernels"))],
            capture_output=True,
            text=True,
            check=False,
        )
    said = process.stderr + process.stdout
    if process.returncode:
        if f"'{code.architecture}' is not defined for option 'gpu-name'" in said:
            return None
        errors = [line for line in said.splitlines() if "error" in line or "fatal" in line]
        first = (errors or said.splitlines() or [f"exit code {process.returncode}"])[0].replace(scratch + "/", "")
        raise SonewError(f"{ptxas} refuses the code for {code.architecture}: {first.strip()}")
    kernels = [
        KernelSpec(
            name=match["name"],
            registers=int(match["registers"]),
            spilled_bytes=max(int(match["stores"]), int(match["loads"])),
        )
        for match in _PTXAS_KERNEL.finditer(said)
    ]
    return tuple(sorted(kernels, key=lambda kernel: code.kernels.index(kernel.name)))


def ptxas_version(ptxas: str) -> str:
    """The release of the assembler, such as `12.9.86`; empty if it does not say."""
    said = subprocess.run([ptxas, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\bV([\d.]+)", said)
    return match[1] if match else ""
