"""NCCL and CUDA's driver for processors, with their interface in C: vectors go through files of a folder.

An all-reduce is put into a queue, and done when the stream is asked whether it is idle, as a GPU would work beside the
host. What is called is noted in the file `calls-RANK`.
"""

import ctypes
import os
import secrets
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NOT_READY = 600
CONTEXT = 77


class StandIn:
    """The libraries of one worker.

    Args:
      folder: the folder of all workers.
      rank: the number of the worker.
      fault: `kill` or `code`, what happens to it, or none.
      call: the number of the all-reduce at which it does, from 1.
    """

    def __init__(self, folder: Path, rank: int, fault: str = "", call: int = 0) -> None:
        self.folder = folder
        self.calls = folder / f"calls-{rank}"
        self.fault = fault
        self.call = call
        self.groups: list[tuple[str, int]] = []
        self.queue: list[tuple[str, int, int, int]] = []
        self.done = 0
        self.kept: list[Any] = []  # what C would call must not be collected

    def load(self, name: str, functions: Mapping[str, Sequence[Any]]) -> Mapping[str, Any]:
        """In place of `nccl.load`."""
        found = {key: ctypes.CFUNCTYPE(*types)(getattr(self, key)) for key, types in functions.items()}
        self.kept += found.values()
        return found

    def note(self, *words: object) -> None:
        with self.calls.open("a", encoding="utf-8") as stream:
            print(*words, file=stream)

    def ncclGetUniqueId(self, place: Any) -> int:  # noqa: N802
        ctypes.memmove(place, secrets.token_bytes(128), 128)
        self.note("id")
        return 0

    def ncclCommInitRank(self, place: Any, count: int, name: Any, rank: int) -> int:  # noqa: N802
        key = bytes(name)[:16].hex()
        (self.folder / f"{key}-{rank}").touch()
        while not (self.folder / f"{key}-{1 - rank}").exists():
            time.sleep(0.001)
        self.groups.append((key, rank))
        place[0] = len(self.groups)
        self.note("group", len(self.groups), "of", count)
        return 0

    def ncclAllReduce(  # noqa: N802
        self, source: int, target: int, size: int, dtype: int, operation: int, group: int, stream: int | None
    ) -> int:
        self.done += 1
        if self.done == self.call and self.fault == "code":
            return 5
        assert (source, dtype, operation, stream) == (target, 7, 0, None)
        self.queue.append((*self.groups[group - 1], target, size))
        self.note("sum", size, "of group", group)
        return 0

    def ncclCommGetAsyncError(self, group: int, place: Any) -> int:  # noqa: N802
        place[0] = 0
        return 0

    def ncclCommDestroy(self, group: int) -> int:  # noqa: N802
        self.note("end of group", group)
        return 0

    def ncclGetErrorString(self, code: int) -> bytes:  # noqa: N802
        return b"invalid usage"

    def ncclGetLastError(self, group: int | None) -> bytes:  # noqa: N802
        return b"a fault\nof the test"

    def cuPointerGetAttribute(self, place: Any, attribute: int, address: int) -> int:  # noqa: N802
        assert attribute == 1
        ctypes.c_void_p.from_address(place).value = CONTEXT
        return 0

    def cuCtxSetCurrent(self, context: int) -> int:  # noqa: N802
        return 0 if context == CONTEXT else 201

    def cuStreamQuery(self, stream: int | None) -> int:  # noqa: N802
        if not self.queue:
            return 0
        key, rank, address, size = self.queue[0]
        mine, other = (self.folder / f"{key}-{self.done}-{len(self.queue)}-{each}" for each in (rank, 1 - rank))
        vector = np.ctypeslib.as_array((ctypes.c_float * size).from_address(address))
        if not mine.exists():
            if self.done == self.call and self.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            partial = mine.with_suffix(".part")
            partial.write_bytes(vector.tobytes())
            partial.rename(mine)
        if other.exists():
            vector += np.frombuffer(other.read_bytes(), np.float32)
            self.queue.pop(0)
        return NOT_READY
