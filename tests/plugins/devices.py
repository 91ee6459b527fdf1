"""The devices that tests compute on."""

import pytest

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import Device, open_device


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
