"""Opening bundles, valid and invalid, and choosing the code that a device can run."""

import dataclasses
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime import Device, Program, choose_target, cpu_flags, open_bundle, why_not_here
from sonew_compiled.runtime.manifest import TargetSpec


def edit(bundle: Path, change: Callable[[Any], object]) -> None:
    """Changes the JSON of the manifest."""
    raw = json.loads((bundle / "manifest.json").read_text())
    change(raw)
    (bundle / "manifest.json").write_text(json.dumps(raw))


def test_open_reads_the_manifest(tiny_bundle: Path) -> None:
    bundle = open_bundle(str(tiny_bundle))
    bundle.verify()
    manifest = bundle.manifest
    assert manifest.model == "tiny"
    assert manifest.batch_size == 8
    assert [spec.name for spec in manifest.batch] == ["image"]
    assert [spec.name for spec in manifest.parameters] == ["params/w", "params/b"]
    assert [spec.itemsize for spec in manifest.state] == [4, 2, 4, 4]
    assert bundle.file(manifest.targets[0].file) == tiny_bundle / "cpu.vmfb"


def test_missing_and_other_directories_are_refused(tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert "sonew compile" in refusal(UsageError, lambda: open_bundle(tmp_path / "no"))
    assert "not a bundle" in refusal(UsageError, lambda: open_bundle(tmp_path))
    (tmp_path / "file").write_text("{}")
    assert "not a bundle" in refusal(UsageError, lambda: open_bundle(tmp_path / "file"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b'{"format_version": 1, "mod', "not JSON"),
        (b"\xff\xfe\x00", "not text"),
        (b"[]", "not the manifest"),
        (b'{"format_version": "1"}', "not the manifest"),
        (b'{"format_version": true}', "not the manifest"),
        (b'{"format_version": 1}', "lacks or misspells"),
        (b'{"format_version": 0}', "compile the bundle again"),
        (b'{"format_version": 2}', "lacks or misspells"),
        (b'{"format_version": 3}', "lacks or misspells"),
        (b'{"format_version": 4}', "upgrade sonew-compiled"),
    ],
)
def test_damaged_manifests_are_refused(
    bundle_copy: Path, content: bytes, said: str, refusal: Callable[..., str]
) -> None:
    (bundle_copy / "manifest.json").write_bytes(content)
    message = refusal(SonewError, lambda: open_bundle(bundle_copy))
    assert said in message
    assert str(bundle_copy / "manifest.json") in message


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("targets"),
        lambda raw: raw.update(files=[]),
        lambda raw: raw.update(functions={}),
        lambda raw: raw["functions"].pop("eval_step"),
        lambda raw: raw["functions"]["init"].update(outputs=[1]),
        lambda raw: raw["functions"]["train_step"]["inputs"][0].update(dtype="float33"),
        lambda raw: raw["functions"]["train_step"]["inputs"].pop(0),
        lambda raw: raw["functions"]["train_step"].update(inputs=raw["functions"]["train_step"]["inputs"][:4]),
        lambda raw: raw["targets"][0].update(surprise=1),
        lambda raw: raw.update(optimizer="adam"),
    ],
)
def test_inconsistent_manifests_are_refused(
    bundle_copy: Path, change: Callable[[Any], object], refusal: Callable[..., str]
) -> None:
    edit(bundle_copy, change)
    assert "manifest.json" in refusal(SonewError, lambda: open_bundle(bundle_copy))


def test_damaged_files_are_caught(bundle_copy: Path, cpu: Device, refusal: Callable[..., str]) -> None:
    bundle = open_bundle(bundle_copy)
    path = bundle_copy / "cpu.vmfb"
    content = path.read_bytes()

    def said() -> str:
        for call in (bundle.verify, lambda: Program.load(bundle, cpu)):
            message = refusal(SonewError, call)
            assert str(path) in message
            assert "sonew compile" in message
        return message

    path.write_bytes(content[:-100])
    assert "truncated" in said()
    path.write_bytes(content + b"x")
    assert "another bundle" in said()
    path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    assert "SHA-256" in said()
    path.unlink()
    assert "missing" in said()
    path.mkdir()
    assert "missing" in said()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_are_refused(bundle_copy: Path, refusal: Callable[..., str]) -> None:
    (bundle_copy / "cpu.vmfb").chmod(0)
    assert "permissions" in refusal(SonewError, open_bundle(bundle_copy).verify)
    (bundle_copy / "manifest.json").chmod(0)
    assert "permissions" in refusal(SonewError, lambda: open_bundle(bundle_copy))


def test_an_executable_cannot_lie_outside(bundle_copy: Path, refusal: Callable[..., str]) -> None:
    def change(raw: Any) -> None:
        raw["files"]["../cpu.vmfb"] = raw["files"]["cpu.vmfb"]
        raw["targets"][0]["file"] = "../cpu.vmfb"

    edit(bundle_copy, change)
    bundle = open_bundle(bundle_copy)
    assert "no entry" in refusal(SonewError, lambda: bundle.file(bundle.manifest.targets[0].file))


def test_an_executable_that_is_none_is_refused(bundle_copy: Path, cpu: Device, refusal: Callable[..., str]) -> None:
    # The hash in the manifest fits the file, so that IREE has to find the fault.
    def change(raw: Any) -> None:
        raw["files"]["manifest.txt"] = {"sha256": "", "size": 0}
        raw["targets"] = [raw["targets"][0] | {"file": "vulkan.vmfb"}]

    edit(bundle_copy, change)
    assert "cannot be loaded" in refusal(SonewError, lambda: Program.load(open_bundle(bundle_copy), cpu))


def test_the_first_target_that_runs_is_chosen(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    cpu, vmvx, vulkan = bundle.manifest.targets
    assert choose_target(bundle, "local-task", "local") is cpu
    assert choose_target(bundle, "vulkan", "vulkan") is vulkan

    def with_first(**changes: Any) -> TargetSpec:
        targets = (dataclasses.replace(cpu, **changes), vmvx, vulkan)
        changed = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, targets=targets))
        return choose_target(changed, "local-task", "local")

    assert with_first(cpu_features=("avx1024",)) is vmvx
    assert with_first(machine="pdp11") is vmvx
    assert with_first(machine=platform.machine()).file == cpu.file
    flags = cpu_flags()
    if flags:
        assert with_first(cpu_features=tuple(sorted(flags))).file == cpu.file


def test_no_code_for_the_device_is_refused(tiny_bundle: Path, refusal: Callable[..., str]) -> None:
    bundle = open_bundle(tiny_bundle)
    message = refusal(SonewError, lambda: choose_target(bundle, "hip", "hip"))
    assert "cpu (for local devices), vmvx (for local devices), vulkan (for vulkan devices)" in message
    assert "sonew compile --target rocm" in message


def test_why_not_here_says_why() -> None:
    target = TargetSpec(name="t", file="t.vmfb", driver="local", cpu="future", cpu_features=("avx1024", "mmx2"))
    assert why_not_here(dataclasses.replace(target, cpu_features=()), {"local": "the CPU"}) == ""
    assert why_not_here(target, {"vulkan": "llvmpipe"}) == "for local devices"
    if cpu_flags():
        assert why_not_here(target, {"local": "the CPU"}) == "for future, this one lacks avx1024, mmx2"
    gpu = TargetSpec(name="g", file="g.vmfb", driver="vulkan", device_names=("amd", "radeon"))
    assert why_not_here(gpu, {"vulkan": "AMD Radeon RX 7900"}) == ""
    assert why_not_here(gpu, {"vulkan": "llvmpipe"}) == "for devices of amd or radeon, this one is llvmpipe"
    assert "pdp11" in why_not_here(dataclasses.replace(target, machine="pdp11"), {"local": "the CPU"})
