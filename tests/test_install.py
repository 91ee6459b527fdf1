"""The command that installs what is missing, by where the package came from."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sonew_compiled import install
from sonew_compiled.errors import SonewError
from sonew_compiled.install import MODULES, extra_of, install_command, require

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
PIP = f"{sys.executable} -m pip install "


@pytest.fixture
def installed_from(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the package one that was installed from a place."""

    real = importlib.metadata.distribution("sonew-compiled")

    class Distribution:
        requires = real.requires

        def __init__(self, url: object) -> None:
            self.url = url

        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if self.url is None else json.dumps(self.url)

    def use(url: object) -> None:
        monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution(url))

    monkeypatch.setattr("shutil.which", lambda name: "/elsewhere/bin/pip")
    return use


def test_from_a_checkout_a_wheel_and_an_index(installed_from: Any, tmp_path: Path) -> None:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    installed_from({"url": folder.as_uri(), "dir_info": {"editable": True}})
    assert install_command("tune") == f"{PIP}-e '{folder}[tune]'"
    installed_from({"url": folder.as_uri(), "dir_info": {}})
    assert install_command("tune") == f"{PIP}'{folder}[tune]'"
    wheel = tmp_path / "sonew_compiled-0.1.0-py3-none-any.whl"
    wheel.touch()
    installed_from({"url": wheel.as_uri(), "archive_info": {}})
    assert install_command("compile", "tpu") == f"{PIP}'{wheel}[compile,tpu]'"
    installed_from(None)
    assert install_command("bench") == f"{PIP}'sonew-compiled[bench]'"


def test_without_the_wheel_the_packages_are_named(installed_from: Any, tmp_path: Path) -> None:
    installed_from({"url": (tmp_path / "gone.whl").as_uri(), "archive_info": {}})
    assert install_command("plot") == f"{PIP}'matplotlib>=3.9'"
    words = install_command("tune").removeprefix(PIP).split()
    assert sorted(words) == sorted(f"'{requirement}'" for requirement in EXTRAS["tune"])


@pytest.mark.parametrize("url", [{"url": 3}, ["url"], {"url": "https://host/a.whl"}, {"dir_info": None}])
def test_a_strange_note_of_the_origin_is_no_error(installed_from: Any, url: object) -> None:
    installed_from(url)
    assert install_command("sign") == f"{PIP}'sonew-compiled[sign]'"


def test_the_pip_of_this_environment_needs_no_path(installed_from: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from(None)
    monkeypatch.setattr("shutil.which", lambda name: str(Path(sys.executable).with_name("pip")))
    assert install_command("sign") == "pip install 'sonew-compiled[sign]'"


def test_an_environment_without_pip_takes_that_of_another(installed_from: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from(None)
    monkeypatch.setattr(install, "lacks", lambda name: name == "pip")
    assert install_command("sign") == f"pip --python {sys.executable} install 'sonew-compiled[sign]'"


def test_what_is_missing_is_said_at_once(installed_from: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from(None)
    require("compile", purpose="this test")
    monkeypatch.setattr(install, "lacks", lambda name: name in ("optuna", "jax"))
    with pytest.raises(SonewError) as raised:
        require("tune", purpose="sonew tune")
    assert str(raised.value) == (f"sonew tune needs jax, optuna, which are not installed: {PIP}'sonew-compiled[tune]'")


def test_modules_belong_to_extras() -> None:
    assert MODULES.keys() < EXTRAS.keys()
    assert extra_of("jax.numpy") == extra_of("jaxlib") == extra_of("iree.compiler.ir") == "compile"
    assert (extra_of("optuna"), extra_of("matplotlib"), extra_of("mpi4py")) == ("tune", "plot", "mpi")
    assert extra_of("iree.runtime") is extra_of("jaxtyping") is extra_of("") is None
