"""The releases of IREE that read a bundle, and those with a warning."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import Device, Program, open_bundle, versions
from sonew_compiled.runtime.versions import check_versions, runtime_version, runtime_weakness


def test_the_compiler_may_not_be_newer_than_the_runtime(
    bundle_copy: Path, cpu: Device, refusal: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    def made_with(version: str | None) -> None:
        raw = json.loads((bundle_copy / "manifest.json").read_text())
        raw["versions"] = {"iree-base-compiler": version} if version else {}
        (bundle_copy / "manifest.json").write_text(json.dumps(raw))

    made_with("99.1.0")
    message = refusal(SonewError, lambda: Program.load(open_bundle(bundle_copy), cpu))
    assert "99.1.0" in message
    assert runtime_version() in message
    assert "pip install" in message
    made_with("2.5.0rc1")
    with caplog.at_level(logging.WARNING):
        check_versions(open_bundle(bundle_copy))
    assert "2.5.0rc1" in caplog.text
    caplog.clear()
    for same in (runtime_version(), None, "unknown"):
        made_with(same)
        check_versions(open_bundle(bundle_copy))
    assert not caplog.text


@pytest.mark.parametrize(
    ("version", "is_weak"),
    [
        *(("3.9.0", False), ("3.10.0", True), ("3.12.4", True), ("3.13.0", True), ("3.13.0rc20260101", True)),
        *(("3.13.1", False), ("3.14", False), ("4.0.0", False), ("", False), ("unknown", False)),
    ],
)
def test_releases_that_check_too_little_are_warned_of(
    version: str, is_weak: bool, small: Any, sonew: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "runtime_version", lambda: version)
    warning = runtime_weakness()
    assert bool(warning) == is_weak
    assert not is_weak or f"iree-base-runtime {version} does not check register numbers" in warning
    said = sonew("--version").out, sonew("inspect", small.bundle).out
    assert [("register numbers" in each) for each in said] == [is_weak, is_weak]
    assert sonew("inspect", small.bundle, "--json").json["runtime_weakness"] == warning
