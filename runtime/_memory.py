"""How the C library treats the memory that a step works in."""

from __future__ import annotations

import ctypes
import functools
import sys

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = -1


@functools.cache
def keep_freed_memory() -> None:
    """Makes the process keep what it frees, for the next step to use.

    IREE's processor devices allocate a step's scratch memory anew at each call. glibc gives blocks beyond 32 MiB back
    to the kernel at once, which clears and maps their pages again for the next step: a sixth of the time of a bfloat16
    step of the autoencoder. The process grows by no more than its largest step took. Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER)
