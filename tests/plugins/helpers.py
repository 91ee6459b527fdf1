"""Small helpers of many tests."""

import importlib.util
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from sonew_compiled.errors import SonewError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def full_disk() -> Callable[..., AbstractContextManager[None]]:
    """`with full_disk(after=N):` no file can grow beyond N bytes, as on a full disk."""

    @contextmanager
    def limited(after: int) -> Iterator[None]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (after, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limited


@pytest.fixture(scope="session")
def load_tool() -> Callable[[str], ModuleType]:
    """Loads a file of `tools/` as a module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Calls a function that must raise exactly this kind of error, and returns its one line."""

    def refused(kind: type[SonewError], call: Callable[[], object]) -> str:
        with pytest.raises(SonewError) as caught:
            call()
        assert type(caught.value) is kind, caught.value
        message = str(caught.value)
        assert message
        assert "\n" not in message
        return message

    return refused
