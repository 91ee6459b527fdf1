"""Devices, and arrays to and from them."""

import platform
import resource
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import iree.runtime as rt
import ml_dtypes
import numpy as np
import pytest

from sonew_compiled.errors import UsageError
from sonew_compiled.runtime import DEFAULT_DEVICE, Device, device, list_devices, missing_drivers, open_device
from sonew_compiled.runtime.device import first_error


def test_the_cpu_is_there_and_every_device_opens() -> None:
    devices = list_devices()
    assert devices[0].name == DEFAULT_DEVICE == "local-task"
    assert {"local-task", "local-sync"} <= {device.name for device in devices}
    for info in devices:
        opened = open_device(info.name)
        assert (opened.name, opened.driver) == (info.name, info.driver)
        assert info.description
    absent = missing_drivers()
    assert {info.name.partition("://")[0] for info in devices} | absent.keys() == set(rt.query_available_drivers())
    assert all(reason and "\n" not in reason for reason in absent.values())


def test_the_default_is_the_cpu_on_all_cores() -> None:
    assert open_device().name == "local-task"


@pytest.mark.parametrize(
    "name",
    ["tpu", "local-task://1", "local-sync://7", "local-task://nowhere", "cpu", "://", "cuda://99", "vulkan://no"],
)
def test_absent_devices_are_refused_with_those_that_are_there(name: str, refusal: Callable[..., str]) -> None:
    message = refusal(UsageError, lambda: open_device(name))
    assert repr(name) in message
    assert "choose from local-task, local-sync" in message


def test_devices_go_by_number() -> None:
    assert open_device("local-sync://0").driver == "local"


def test_each_of_two_gpus_is_judged_by_its_own_name(monkeypatch: pytest.MonkeyPatch, sonew: Callable[..., Any]) -> None:
    gpus = [{"name": "Intel Arc", "path": "first"}, {"name": "NVIDIA A10", "path": "second"}]
    monkeypatch.setattr(device.rt, "query_available_drivers", lambda: ["vulkan"])
    monkeypatch.setattr(device, "_query", lambda driver: gpus)
    monkeypatch.setattr(device, "_create", lambda name, found: SimpleNamespace(allocator=None))
    monkeypatch.setattr(device, "_OPEN", {})
    for index, gpu in enumerate(gpus):
        assert open_device(f"vulkan://{gpu['path']}").description == gpu["name"]
        assert open_device(f"vulkan://{index}").description == gpu["name"]
    (ampere,) = (row for row in sonew("targets", "--json").json if row["name"] == "vulkan:ampere")
    assert (ampere["run"], ampere["devices"]) == (True, [list_devices()[1].name])


@pytest.mark.parametrize(
    "array",
    [
        np.array(3, np.int32),
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.linspace(-1, 1, 5),
        np.arange(7, dtype=np.float16),
        np.arange(7).astype(ml_dtypes.bfloat16),
        np.arange(-3, 3, dtype=np.int8),
        np.arange(6, dtype=np.uint8),
        np.arange(6, dtype=np.uint32),
        np.array([1 << 40, -1], np.int64),
        np.array([True, False, True]),
        np.zeros((0, 3), np.float32),
        np.arange(20, dtype=np.float32).reshape(4, 5).T,
        np.broadcast_to(np.float32(2), (3, 3)),
        np.arange(2**18, dtype=np.float32),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_arrays_come_back_as_they_went(device: Device, array: np.ndarray) -> None:
    copy = device.download(device.upload(array), array.dtype.name, array.shape)
    assert copy.dtype == array.dtype
    np.testing.assert_array_equal(copy, array)
    # The host's copy outlives the buffer and is writable.
    copy[...] = 0
    assert copy.flags.c_contiguous


def test_an_upload_is_a_copy(device: Device) -> None:
    array = np.ones(1000, np.float32)
    buffer = device.upload(array)
    array[:] = 2
    np.testing.assert_array_equal(device.download(buffer, "float32", (1000,)), 1)


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1], ">i4"), np.array([None])])
def test_other_dtypes_are_refused(cpu: Device, array: np.ndarray, refusal: Callable[..., str]) -> None:
    assert str(array.dtype) in refusal(UsageError, lambda: cpu.upload(array))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is of glibc")
def test_a_processor_device_keeps_the_memory_of_a_step() -> None:
    open_device()

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        bytearray(b"x") * (64 << 20)  # more than glibc keeps by default
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < (64 << 20) // resource.getpagesize() // 10


def test_errors_of_iree_are_cut_to_their_message() -> None:
    text = (
        "Error creating driver: c/runtime/src/iree/hal/drivers/hip/symbols.c:155: UNAVAILABLE; library not available: "
        "install it\n  Tried: libamdhip64.so"
    )
    assert first_error(RuntimeError(text)) == "UNAVAILABLE; library not available: install it"
    assert first_error(RuntimeError("plain")) == "plain"
    assert first_error(MemoryError()) == "MemoryError"
    assert len(first_error(RuntimeError("x" * 5000))) == 300
