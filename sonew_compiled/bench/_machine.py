"""The machine and the versions that a row was measured with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

from sonew_compiled.runtime import cpu_flags, list_devices

PACKAGES = ("sonew-compiled", "iree-base-compiler", "iree-base-runtime", "jax", "jaxlib", "optax", "numpy", "torch")

# The processor flags that tell its vector widths and its types.
_TELLING = ("avx", "fma", "amx", "f16c", "sve", "asimd", "neon", "bf16", "sse4_2", "rvv")


def machine(device: str) -> dict[str, Any]:
    """The processor, its threads that this process may use, and the device by its name for `--device`."""
    info = next((each for each in list_devices() if each.name == device), None)
    return {
        "cpu": cpu_model(),
        "cpu_features": sorted(flag for flag in cpu_flags() or () if flag.startswith(_TELLING)),
        "threads": threads(),
        "platform": platform.platform(terse=True),
        "device": device,
        "device_description": info.description if info else device,
        "driver": info.driver if info else device.partition("://")[0],
    }


def threads() -> int:
    """Hardware threads that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """The versions of Python and of the installed `PACKAGES`."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def peak_resident_bytes() -> int:
    """The peak resident memory of this process in bytes; 0 if the system does not tell.

    Linux keeps it in `VmHWM`. Its `ru_maxrss` would start at the peak of the parent process.
    """
    try:
        match = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^(?:model name|Model|uarch)\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()
