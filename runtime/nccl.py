"""Sums over workers with an NVIDIA GPU each, by NCCL: the buckets stay on the GPUs.

NCCL adds several vectors in an order of its own. So it is asked for sums of two alone, which have one order: neighbours
first, then neighbouring pairs, and so on. That is the tree of `reduce.py`, so that the bits are those of a sum on the
host.

IREE's CUDA driver gives the address of a buffer that was allocated for itself, and refuses that of a call's result,
which is of its pool. So a bucket is copied, on the GPU, into a buffer that is kept.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sonew_compiled.contract import Driver
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.install import install_command
from sonew_compiled.runtime.device import Buffer, Device, first_error
from sonew_compiled.runtime.workers import Workers


class Id(ctypes.Structure):
    """NCCL's name of a group of workers."""

    _fields_ = (("content", ctypes.c_byte * 128),)


class _Tensor(ctypes.Structure):
    """The beginning of DLPack's `DLManagedTensor`."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("dtype", ctypes.c_uint8 * 4),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    )


_ADDRESS, _SIZE, _INT, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p
# The result and the arguments of each function, as `nccl.h` and `cuda.h` have them.
NCCL = {
    "ncclGetUniqueId": (_INT, ctypes.POINTER(Id)),
    "ncclCommInitRank": (_INT, ctypes.POINTER(_ADDRESS), _INT, Id, _INT),
    "ncclAllReduce": (_INT, _ADDRESS, _ADDRESS, _SIZE, _INT, _INT, _ADDRESS, _ADDRESS),
    "ncclCommGetAsyncError": (_INT, _ADDRESS, ctypes.POINTER(_INT)),
    "ncclCommDestroy": (_INT, _ADDRESS),
    "ncclGetErrorString": (_TEXT, _INT),
    "ncclGetLastError": (_TEXT, _ADDRESS),
}
CUDA = {
    "cuPointerGetAttribute": (_INT, _ADDRESS, _INT, ctypes.c_uint64),
    "cuCtxSetCurrent": (_INT, _ADDRESS),
    "cuStreamQuery": (_INT, _ADDRESS),
}

_LIBRARY = "libnccl.so.2"
_FLOAT32, _SUM = 7, 0
_CONTEXT_OF_POINTER = 1
_STILL_AT_WORK = {"ncclCommGetAsyncError": 7, "cuStreamQuery": 600}
_ON_CUDA = 2  # of DLPack


class Nccl:
    """The sums of buckets over workers, each of which makes one at the same time and keeps it until `close`."""

    def __init__(self, device: Device, workers: Workers) -> None:
        """Connects the GPUs of all workers.

        Raises:
          UsageError: the device is no NVIDIA GPU, NCCL is not installed, or the number of workers is no power of two.
          SonewError: NCCL cannot connect the GPUs.
        """
        if device.driver != Driver.CUDA:
            raise UsageError(
                f"--exchange-by nccl is for NVIDIA GPUs, and device {device.name} is none: choose host, or --device "
                "cuda"
            )
        if workers.count & (workers.count - 1):
            raise UsageError(
                f"--exchange-by nccl is for 2, 4, 8 and so on workers, and there are {workers.count}: start as many, "
                "or choose host"
            )
        self._nccl = _nccl()
        self._cuda = load("libcuda.so.1", CUDA)
        self._device = device
        self._workers = workers
        self._kept = device.upload(np.zeros(1, np.float32))
        self._context = self._context_of(_address(device, self._kept))
        self._groups: list[ctypes.c_void_p] = []
        ids = workers.gather([self._new_id() for _ in range(workers.count.bit_length() - 1)])
        for level in range(workers.count.bit_length() - 1):
            self._connect(partner=workers.rank ^ (1 << level), level=level, ids=ids)

    def check_shared(self, parts: int, path: Path) -> None:
        """Checks that each worker has a whole subtree of the micro-batches of a batch, `parts`.

        Raises:
          UsageError: some worker has not.
        """
        each, rest = divmod(parts, self._workers.count)
        if rest or each & (each - 1):
            raise UsageError(
                f"--exchange-by nccl: a batch of {path} has {parts} micro-batches, of which {self._workers.count} "
                "workers cannot have 1, 2, 4 or so on each: compile it with another --micro-batch, or choose host"
            )

    def sum(self, bucket: Buffer, size: int) -> Buffer:
        """The sum of the buckets of all workers, in memory that the next sum overwrites.

        Args:
          bucket: this worker's float32 vector on its device.
          size: the number of its elements.

        Raises:
          SonewError: NCCL or the device failed; the work of all workers ends with it.
          WorkerLostError: a worker has ended, and MPI lets the others live.
        """
        if self._kept.byte_length != bucket.byte_length:
            self._kept = self._device.upload(np.zeros(size, np.float32))
        self._device.copy(bucket, self._kept)
        address = _address(self._device, self._kept)
        with self._workers.outside() as wait:
            self._check("cuCtxSetCurrent", self._context)
            for group in self._groups:
                self._check("ncclAllReduce", address, address, size, _FLOAT32, _SUM, group, None)
            wait(self._is_done)
        return self._kept

    def close(self) -> None:
        """Disconnects the GPUs after the last sum of all workers; after an error the end of the process does it."""
        while self._groups:
            self._check("ncclCommDestroy", self._groups.pop())

    def _connect(self, *, partner: int, level: int, ids: Sequence[Sequence[bytes]]) -> None:
        first = min(self._workers.rank, partner)
        name = Id.from_buffer_copy(ids[first][level])
        group, failed = ctypes.c_void_p(), list[SonewError]()

        def begin() -> None:
            try:
                self._check("cuCtxSetCurrent", self._context)
                self._check("ncclCommInitRank", ctypes.byref(group), 2, name, int(partner == first))
            except SonewError as error:
                failed.append(error)

        # NCCL returns once the other worker has come, who may have ended.
        thread = threading.Thread(target=begin, daemon=True)
        with self._workers.outside() as wait:
            thread.start()
            wait(lambda: not thread.is_alive())
            if failed:
                raise failed[0]
        self._groups.append(group)

    def _new_id(self) -> bytes:
        found = Id()
        self._check("ncclGetUniqueId", ctypes.byref(found))
        return bytes(found)

    def _context_of(self, address: int) -> ctypes.c_void_p:
        """IREE's context of CUDA, which NCCL has to use too."""
        found = ctypes.c_void_p()
        self._check("cuPointerGetAttribute", ctypes.byref(found), _CONTEXT_OF_POINTER, address)
        return found

    def _is_done(self) -> bool:
        of_group = ctypes.c_int()
        for group in self._groups:
            self._check("ncclCommGetAsyncError", group, ctypes.byref(of_group))
            self._check_code("ncclCommGetAsyncError", of_group.value)
        return self._check("cuStreamQuery", None) == 0

    def _check(self, function: str, *given: Any) -> int:
        """The result of a function, which must be 0, or stand for work that goes on."""
        library = self._cuda if function in CUDA else self._nccl
        return self._check_code(function, library[function](*given))

    def _check_code(self, function: str, code: int) -> int:
        if code not in (0, _STILL_AT_WORK.get(function, 0)):
            more = ""
            if function in NCCL:
                texts = self._nccl["ncclGetErrorString"](code), self._nccl["ncclGetLastError"](None)
                more = "".join(f": {' '.join(text.decode(errors='replace').split())}" for text in texts if text)
            raise SonewError(
                f"{function} failed on device {self._device.name} with code {code}{more[:300]}; NCCL_DEBUG=INFO says "
                "more, and --exchange-by host does without NCCL"
            )
        return code


def _nccl() -> Mapping[str, Any]:
    try:
        found = importlib.util.find_spec("nvidia.nccl")
    except ModuleNotFoundError:
        found = None
    folders = (found.submodule_search_locations or []) if found else []
    for name in (*(str(Path(folder, "lib", _LIBRARY)) for folder in folders), _LIBRARY):
        try:
            return load(name, NCCL)
        except UsageError as error:
            reason = error
    raise UsageError(f"{reason}: {install_command('nccl')}, or choose host")


def load(name: str, functions: Mapping[str, Sequence[Any]]) -> Mapping[str, Any]:
    """The functions of a library in C, by name.

    Raises:
      UsageError: it cannot be loaded, or lacks a function.
    """
    try:
        library = ctypes.CDLL(name)
        return {key: ctypes.CFUNCTYPE(*types)((key, library)) for key, types in functions.items()}
    except (OSError, AttributeError) as error:
        raise UsageError(f"--exchange-by nccl needs {name}, which cannot be loaded ({error})") from None


def _address(device: Device, buffer: Buffer) -> int:
    """The address of a buffer that was allocated for itself, in the device's memory."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    try:
        capsule = device.hal.create_dlpack_capsule(buffer, _ON_CUDA, 0)
    except Exception as error:
        raise SonewError(
            f"device {device.name} gives no address of a buffer ({first_error(error)}): choose --exchange-by host"
        ) from None
    tensor = _Tensor.from_address(get(capsule, b"dltensor"))
    return int(tensor.data) + int(tensor.byte_offset)
