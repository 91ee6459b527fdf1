"""The devices that tests compute on."""

import gc
from collections.abc import Generator, Iterator

import pytest

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import Device, open_device
from sonew_compiled.runtime import device as devices


def close_vulkan() -> None:
    """Closes Vulkan's device, whose buffers must be gone.

    While it is open, two threads of IREE wait for two semaphores each, and Mesa's software driver waits for the first
    of several by asking again and again: an idle device takes both cores from all that comes after.
    """
    gc.collect()
    devices._OPEN.pop("vulkan", None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Has the next test, or the next run of this one, open a Vulkan device anew after one was lost."""
    report = yield
    if report.failed and "VK_ERROR_DEVICE_LOST" in report.longreprtext:
        devices._OPEN.pop("vulkan", None)
    return report


@pytest.fixture(scope="module", autouse=True)
def _closed_vulkan() -> Iterator[None]:
    yield
    close_vulkan()


@pytest.fixture(params=["local-sync", "local-task", "vulkan"])
def device(request: pytest.FixtureRequest) -> Device:
    """Each device for which the tiny bundle has code; skipped if it is missing."""
    return _open_or_skip(request.param)


@pytest.fixture
def cpu() -> Device:
    """The CPU, on one core."""
    return open_device("local-sync")


def _open_or_skip(name: str) -> Device:
    try:
        return open_device(name)
    except SonewError as error:
        pytest.skip(str(error))
