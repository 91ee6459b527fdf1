"""Paths without a bundle, damaged bundles, and bundles for another device."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
Refused = Callable[..., str]
Line = tuple[object, ...]
Change = Callable[[Callable[[dict[str, Any]], object]], None]


@pytest.mark.parametrize("line", ["run X", "eval X --checkpoint c", "reconstruct X --checkpoint c", "inspect X"])
@pytest.mark.parametrize("name", ["missing", "file", "folder"])
def test_what_is_not_a_bundle(refused: Refused, line: str, name: str) -> None:
    Path("file").write_text("")
    Path("folder").mkdir()
    message = refused(2, *line.replace("X", name).split())
    assert name in message
    assert "sonew compile" in message


def test_damaged_executables(refused: Refused, train_line: Line) -> None:
    path = Path("small.bundle/cpu.vmfb")
    content = path.read_bytes()
    damages: dict[str, Callable[[], object]] = {
        "is missing": path.unlink,
        "truncated": lambda: path.write_bytes(content[:-100]),
        "has SHA-256": lambda: path.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:]),
    }
    for said, damage in damages.items():
        damage()
        for line in (train_line, ("inspect", "small.bundle")):
            message = refused(1, *line)
            assert "small.bundle/cpu.vmfb" in message
            assert said in message
            assert "compile the bundle again" in message


def test_an_executable_that_is_none(refused: Refused, change_manifest: Change, train_line: Line) -> None:
    """The hash fits, so that IREE has to find the fault."""
    content = b"not an executable" * 100
    Path("small.bundle/cpu.vmfb").write_bytes(content)
    spec = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    change_manifest(lambda manifest: manifest["files"].update({"cpu.vmfb": spec}))
    message = refused(1, *train_line)
    assert "small.bundle/cpu.vmfb cannot be loaded on device local-task" in message
    assert "compile the bundle again" in message


def test_damaged_manifests(refused: Refused, train_line: Line) -> None:
    path = Path("small.bundle/manifest.json")
    text = path.read_text()
    for content, said in (
        (text[: len(text) // 2], "truncated or corrupt"),
        ("\xff\xfe", "not JSON"),
        ("[]", "no format_version"),
        ("{}", "no format_version"),
    ):
        path.write_text(content)
        for line in (train_line, ("inspect", "small.bundle")):
            message = refused(1, *line)
            assert "small.bundle/manifest.json" in message
            assert said in message
            assert "compile the bundle again" in message
    path.write_bytes(b"\xff\xfe")
    assert "corrupt" in refused(1, "inspect", "small.bundle")


def test_manifests_that_lack_something_or_hold_something_else(sonew: Run) -> None:
    """Every change is refused on one line or has no effect, and none gives a traceback."""
    path = Path("small.bundle/manifest.json")
    original = json.loads(path.read_text())

    def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        keys = (
            list(value)
            if isinstance(value, dict)
            else list(range(min(len(value), 2)))
            if isinstance(value, list)
            else []
        )
        for key in keys:
            yield (*at, key)
            yield from places(value[key], (*at, key))

    def without(at: tuple[Any, ...], *replacement: Any) -> Any:
        changed = json.loads(json.dumps(original))
        inner = changed
        for key in at[:-1]:
            inner = inner[key]
        if replacement:
            inner[at[-1]] = replacement[0]
        else:
            del inner[at[-1]]
        return changed

    refusals = 0
    for at in places(original):
        if at[0] == "functions" and len(at) > 4 and at[1] != "train_step":
            continue  # like those of train_step
        for change in ((), (None,), ("text",), (7,), ([],), ({},)):
            path.write_text(json.dumps(without(at, *change)))
            result = sonew("inspect", "small.bundle")
            assert result.code in (0, 1), (at, change)
            if result.code == 1:
                refusals += 1
                assert result.err.startswith("sonew: small.bundle/"), (at, change)
                assert result.err.count("\n") == 1, (at, change)
    assert refusals > 100


@pytest.mark.parametrize("key", ["learning_rate", "schedule"])
def test_a_manifest_without_defaults_to_train_by(
    refused: Refused, key: str, change_manifest: Change, train_line: Line
) -> None:
    change_manifest(lambda manifest: manifest["defaults"].pop(key))
    message = refused(1, *train_line)
    assert "small.bundle/manifest.json" in message
    assert key in message


def test_learning_rates_that_a_bundle_cannot_have(sonew: Run, change_manifest: Change, train_line: Line) -> None:
    for rate in (-1.0, math.nan, "fast", None):
        change_manifest(lambda manifest, rate=rate: manifest["defaults"].update(learning_rate=rate))
        result = sonew(*train_line)
        assert result.code in (1, 2)
        assert result.err.count("\n") == 1
        assert "learning" in result.err


def test_a_newer_bundle(refused: Refused, change_manifest: Change, train_line: Line) -> None:
    change_manifest(lambda manifest: manifest.update(format_version=99))
    for line in (train_line, ("inspect", "small.bundle")):
        message = refused(1, *line)
        assert "format version 99; this runtime reads 1 to " in message
        assert "upgrade sonew-compiled" in message


def test_a_dtype_that_there_is_not(refused: Refused, change_manifest: Change, train_line: Line) -> None:
    change_manifest(lambda manifest: manifest["functions"]["train_step"]["inputs"][-1].update(dtype="float12"))
    message = refused(1, *train_line)
    assert "float12" in message
    assert "compile the bundle again" in message


def test_a_bundle_without_code_for_the_device(refused: Refused, change_manifest: Change, train_line: Line) -> None:
    change_manifest(lambda manifest: manifest["targets"][0].update(name="cuda:sm_80", driver="cuda"))
    message = refused(1, *train_line)
    assert "no code for device local-task: it holds cuda:sm_80" in message
    assert "sonew compile --target cpu" in message


def test_a_bundle_for_another_processor(refused: Refused, change_manifest: Change, train_line: Line) -> None:
    change_manifest(lambda manifest: manifest["targets"][0].update(cpu="future", cpu_features=["avx9000"]))
    message = refused(1, *train_line)
    assert "for future, this one lacks avx9000" in message
    assert "sonew compile --target cpu" in message


def test_a_model_that_cannot_be_drawn(refused: Refused, trained: Path, change_manifest: Change) -> None:
    change_manifest(lambda manifest: manifest["functions"].pop("predict"))
    message = refused(2, "reconstruct", "small.bundle", "--checkpoint", trained)
    assert "has no predict function: give the model one and compile it again" in message
