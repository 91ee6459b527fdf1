"""IREE devices: listing and opening them, and copying arrays to and from them.

IREE's bindings may raise any exception; each is taken as an error of the device.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Any, TypeAlias

import iree.runtime as rt
import numpy as np
from iree.runtime import _binding

from sonew_compiled.contract import Driver
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.mpi_environment import hidden
from sonew_compiled.runtime._memory import keep_freed_memory
from sonew_compiled.runtime.dtypes import as_dtype

DEFAULT_DEVICE = "local-task"

Buffer: TypeAlias = rt.HalBufferView
"""A tensor on a device: `iree.runtime.HalBufferView`."""

_KINDS = {"local-task": Driver.LOCAL, "local-sync": Driver.LOCAL}
# Never closed: a buffer does not keep its device open, and one of Vulkan crashes the process if it outlives it.
_OPEN: dict[str, Any] = {}
_DRIVERS: dict[str, Any] = {}
# Devices belong to a process. A forked child has the parent's devices, but none of the threads that serve them.
_generation = 0
_LOCAL = {"local-task": "the CPU, on all cores", "local-sync": "the CPU, on one core"}


def _leave_devices_to_the_parent() -> None:
    global _generation
    _generation += 1
    for left in (*_OPEN.values(), *_DRIVERS.values()):
        # Destroying them would wait forever for those threads.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(left))
    _OPEN.clear()
    _DRIVERS.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_leave_devices_to_the_parent)


@dataclass(frozen=True, kw_only=True)
class DeviceInfo:
    """A device that can be opened here.

    Attributes:
      name: its name for `--device`: a driver for its first device, or `driver://N` for device number N from 0.
      driver: the kind of code that it runs, as in `TargetSpec.driver`: `local`, `vulkan`, `cuda`, `hip`.
      description: the hardware in words.
    """

    name: str
    driver: str
    description: str


def first_error(error: BaseException) -> str:
    """The message of IREE's error on one line of at most 300 characters, without the place in IREE's sources."""
    line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    # "Error creating driver: c/runtime/src/iree/hal/x.c:66: UNAVAILABLE; what happened; while doing this"
    _, separator, tail = line.partition(".c:")
    if separator and ": " in tail:
        line = tail.split(": ", 1)[1]
    line = line.strip()
    return line if len(line) <= 300 else line[:297] + "..."


def list_devices() -> list[DeviceInfo]:
    """The devices that can be opened here, the CPU first; drivers that do not load are left out."""
    return _scan()[0]


def missing_drivers() -> dict[str, str]:
    """The reason why IREE's driver has no device here, for each driver without one."""
    return _scan()[1]


def _scan() -> tuple[list[DeviceInfo], dict[str, str]]:
    devices: list[DeviceInfo] = []
    missing: dict[str, str] = {}
    for driver in sorted(rt.query_available_drivers(), key=lambda name: (name != DEFAULT_DEVICE, name)):
        try:
            found = _query(driver)
        except Exception as error:
            missing[driver] = first_error(error)
            continue
        if not found:
            missing[driver] = "the driver finds no device"
        for index, info in enumerate(found):
            devices.append(
                DeviceInfo(
                    name=f"{driver}://{index}" if index else driver,
                    driver=_KINDS.get(driver, driver),
                    description=_description(driver, info),
                )
            )
    return devices, missing


def _query(driver: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _driver(driver).query_available_devices()
    return found


def _driver(name: str) -> Any:
    """The driver, made once in each process. IREE's own cache would give a forked child its parent's."""
    if name not in _DRIVERS:
        _DRIVERS[name] = _binding.create_hal_driver(name)
    return _DRIVERS[name]


def as_device(device: Device | str | None) -> Device:
    """An open device as it is, and that of a name opened, as `open_device` does it."""
    return device if isinstance(device, Device) else open_device(device)


def open_device(name: str | None = None) -> Device:
    """Opens a device.

    Args:
      name: a driver (`local-task`, `local-sync`, `vulkan`, `cuda`, `hip`) for its first device, `driver://N` for its
        device number N from 0, or a `driver://path` as IREE names it. None is `local-task`, the CPU on all cores.

    Raises:
      UsageError: there is no such device here; the message lists the devices.
      SonewError: the device exists and cannot be opened.
    """
    name = name or DEFAULT_DEVICE
    driver, _, path = name.partition("://")
    if driver not in rt.query_available_drivers():
        raise _absent(name, "IREE has no such driver")
    try:
        found = _query(driver)
    except Exception as error:
        raise _absent(name, first_error(error)) from None
    if not found or (path.isdecimal() and int(path) >= len(found)):
        raise _absent(name, f"the driver finds {len(found) or 'no'} device{'s' if len(found) > 1 else ''}")
    if name not in _OPEN:
        _OPEN[name] = _create(name, found)
    of_path = [each for each in found if path and each.get("path") == path]
    info = found[int(path)] if path.isdecimal() else [*of_path, *found][0]
    return Device(name=name, driver=_KINDS.get(driver, driver), description=_description(driver, info), hal=_OPEN[name])


def _description(driver: str, info: dict[str, Any]) -> str:
    return _LOCAL.get(driver) or str(info.get("name") or driver)


def _create(name: str, found: list[dict[str, Any]]) -> Any:
    driver, _, path = name.partition("://")
    if driver in _LOCAL:
        keep_freed_memory()
    try:
        with hidden():
            if not path or (path.isdecimal() and int(path) == 0 and len(found) == 1):
                return _driver(driver).create_default_device()
            if path.isdecimal():
                return _driver(driver).create_device(found[int(path)])
            return _driver(driver).create_device_by_uri(name)
    except Exception as error:
        if path and not path.isdecimal():
            raise _absent(name, first_error(error)) from None
        raise SonewError(f"device {name} cannot be opened: {first_error(error)}; choose another --device") from None


def _absent(name: str, reason: str) -> UsageError:
    names = ", ".join(info.name for info in list_devices())
    return UsageError(f"there is no device {name!r} here ({reason}): choose from {names}")


class Device:
    """An open device. Arrays may have any dtype of NumPy, or bfloat16 and float8 of ml_dtypes, that IREE supports.

    Attributes:
      name: the name given to `open_device`.
      driver: the kind of code that it runs: `local`, `vulkan`, `cuda`, `hip`.
      description: the hardware in words.
      hal: the `iree.runtime.HalDevice`.
    """

    def __init__(self, *, name: str, driver: str, description: str, hal: Any) -> None:
        self.name = name
        self.driver = driver
        self.description = description
        self.hal = hal
        self._allocator = hal.allocator
        self._generation = _generation

    def __repr__(self) -> str:
        return f"Device({self.name}: {self.description})"

    def check_process(self) -> None:
        """Checks that this process opened the device; any use of another's would wait forever.

        Raises:
          SonewError: the device was opened before a `fork`.
        """
        if self._generation != _generation:
            raise SonewError(
                f"device {self.name} was opened before this process was forked, and cannot be used here: open it "
                'again in the child, or start the child by the method "spawn" of multiprocessing'
            )

    def upload(self, array: np.ndarray) -> Buffer:
        """Copies an array to the device.

        Raises:
          SonewError: the device is out of memory.
        """
        self.check_process()
        # The array is always copied, because compiled code may assume an alignment that NumPy does not guarantee.
        array = np.asarray(array, order="C")
        element_type = rt.array_interop.map_dtype_to_element_type(array.dtype)
        if element_type is None:
            raise UsageError(f"an array of dtype {array.dtype} cannot be put on a device: convert it first")
        try:
            return self._allocator.allocate_buffer_copy(
                memory_type=rt.MemoryType.DEVICE_LOCAL,
                allowed_usage=rt.BufferUsage.DEFAULT,
                device=self.hal,
                buffer=array,
                element_type=element_type,
            )
        except Exception as error:
            raise SonewError(
                f"{array.nbytes:,} bytes cannot be put on device {self.name}: {first_error(error)}; "
                "free memory there or take a smaller --batch-size"
            ) from None

    def download(self, buffer: Buffer, dtype: str | np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """Copies a buffer to a new array of `dtype` (a NumPy or ml_dtypes name) and `shape`.

        Raises:
          SonewError: the device failed.
        """
        self.check_process()
        dtype = as_dtype(dtype) if isinstance(dtype, str) else dtype
        result = np.empty(shape, dtype)
        if result.nbytes == 0:
            return result
        try:
            source = buffer.get_buffer()
            assert source.byte_length() >= result.nbytes, (source.byte_length(), shape, dtype)
            if not _is_mappable(source):
                source = self._staged(source)
            # The array is a view of memory that the next step overwrites, or that ends with the mapping, so it is
            # copied.
            mapped = source.map()
            result[...] = mapped.asarray(list(shape), dtype)
        except Exception as error:
            raise SonewError(f"device {self.name} failed while copying a result: {first_error(error)}") from None
        return result

    def memory(self, buffer: Buffer, dtype: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The buffer itself as a writable array; None if the host cannot reach the device's memory.

        The array keeps the buffer alive. Only the maker of the buffer may write to it: the results of a call, before
        they are given to another call.
        """
        self.check_process()
        source = buffer.get_buffer()
        if not _is_mappable(source):
            return None
        try:
            array: np.ndarray = source.map().asarray(list(shape), as_dtype(dtype))
        except Exception as error:
            raise SonewError(f"device {self.name} failed while computing a result: {first_error(error)}") from None
        return array

    def copy(self, source: Buffer, target: Buffer) -> None:
        """Copies a buffer to another one of this device and of the same size.

        Raises:
          SonewError: the device failed.
        """
        self.check_process()
        try:
            self._copy(source.get_buffer(), target.get_buffer())
        except Exception as error:
            raise SonewError(f"device {self.name} failed in copying a buffer: {first_error(error)}") from None

    def _staged(self, source: Any) -> Any:
        """A copy of a device buffer that the host can map.

        `DeviceArray.to_host` imports the NumPy array's own memory as the target instead, which Vulkan refuses unless it
        lies on a page boundary.
        """
        staging = self._allocator.allocate_buffer(
            memory_type=int(rt.MemoryType.HOST_LOCAL | rt.MemoryType.DEVICE_VISIBLE),
            allowed_usage=int(rt.BufferUsage.TRANSFER_TARGET | rt.BufferUsage.MAPPING_SCOPED),
            allocation_size=source.byte_length(),
        )
        self._copy(source, staging)
        return staging

    def _copy(self, source: Any, target: Any) -> None:
        semaphore = self.hal.create_semaphore(0)
        self.hal.queue_copy(
            source,
            target,
            wait_semaphores=rt.HalFence.create_at(semaphore, 0),
            signal_semaphores=rt.HalFence.create_at(semaphore, 1),
        )
        rt.HalFence.create_at(semaphore, 1).wait()


def _is_mappable(buffer: Any) -> bool:
    visible, scoped = int(rt.MemoryType.HOST_VISIBLE), int(rt.BufferUsage.MAPPING_SCOPED)
    return bool(buffer.memory_type() & visible == visible and buffer.allowed_usage() & scoped == scoped)
