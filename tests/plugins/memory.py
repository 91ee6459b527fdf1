"""Bounds the memory of a test process."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Three processes of the size share a machine of 8 GB.
_MOST = 2 << 30
_PAGE = 4096


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory() -> Iterator[None]:
    """Drops what a file's tests leave, such as JAX's compiled functions and cycles of traces, if that is much."""
    yield
    if _resident() > _MOST:
        if (jax := sys.modules.get("jax")) is not None:
            jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int:
    """The bytes of memory that this process holds; 0 where Linux does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text(encoding="ascii").split()[1]) * _PAGE if statm.exists() else 0
