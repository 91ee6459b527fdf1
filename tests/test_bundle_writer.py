"""Writing a bundle replaces only an older bundle's own files, whenever other files appear."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonew_compiled import bundle_writer
from sonew_compiled.bundle_writer import write_bundle
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.folder_lock import locked_folder
from sonew_compiled.runtime import older_bundle, open_bundle
from sonew_compiled.runtime.older_bundle import remove_bundle, writable_bundle

Refusal = Callable[..., str]


@pytest.fixture
def write(tiny_bundle: Path) -> Callable[[Path], None]:
    """Writes the tiny bundle, without one of its files, to the place that `writable_bundle` gives."""
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    manifest["targets"] = [target for target in manifest["targets"] if target["file"] != "vulkan.vmfb"]
    del manifest["files"]["vulkan.vmfb"]
    files = {name: (tiny_bundle / name).read_bytes() for name in manifest["files"]}

    def run(path: Path) -> None:
        write_bundle(writable_bundle(path), files, json.dumps(manifest))
        open_bundle(path).verify()
        assert {each.name for each in path.iterdir()} == {"manifest.json", *files}

    return run


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_bundles_are_written_where_they_are_asked_for(
    write: Callable[[Path], None], bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bundles are written anew, over an older one, through a link and into the current folder, without leftovers."""
    folder = bundle_copy.parent
    write(bundle_copy)
    write(folder / "deep" / "new")
    (folder / "elsewhere").mkdir()
    (folder / "link").symlink_to("elsewhere")
    write(folder / "link")
    write(folder / "link")
    assert (folder / "link").is_symlink()
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    write(Path())
    monkeypatch.chdir(folder)
    assert {path.name for path in folder.iterdir()} == {"tiny", "deep", "elsewhere", "link", "here"}
    assert {path.name for path in (folder / "deep").iterdir()} == {"new"}


def _app(files: Any) -> Callable[[Path], None]:
    """Turns the manifest into that of an unrelated program."""
    return lambda path: (path / "manifest.json").write_text(json.dumps({"name": "an app", "files": files})) and None


def _list_photos(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["photos"] = {"sha256": "0" * 64, "size": 0}
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "photos").mkdir()
    (path / "photos" / "wedding.jpg").write_text("mine")


@pytest.mark.parametrize(
    "damage",
    [
        _list_photos,
        _app({"cpu.vmfb": "/cpu.vmfb", "vmvx.vmfb": "", "vulkan.vmfb": ""}),
        _app(["cpu.vmfb", "vmvx.vmfb", "vulkan.vmfb"]),
        lambda path: (path / "manifest.json").unlink(),
        lambda path: (path / "notes.txt").write_text("mine"),
        lambda path: (path / "cpu.vmfb").write_text("mine"),
        lambda path: (path / "cpu.vmfb").rename(path.parent / "moved") and (path / "cpu.vmfb").symlink_to("../moved"),
        lambda path: shutil.move(path, path.parent / "moved") and path.symlink_to("nowhere"),
        lambda path: shutil.move(path, path.parent / "moved") and os.mkfifo(path),
    ],
)
def test_what_is_no_older_bundle_stays(bundle_copy: Path, damage: Callable[[Path], object], refusal: Refusal) -> None:
    damage(bundle_copy)
    before = everything_in(bundle_copy.parent)
    message = refusal(UsageError, lambda: writable_bundle(bundle_copy))
    assert str(bundle_copy) in message
    assert "give a new directory" in message
    assert everything_in(bundle_copy.parent) == before


def test_a_bundle_that_cannot_be_exchanged_is_refused_at_once(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.chdir(bundle_copy)
    assert "is the current folder" in refusal(UsageError, lambda: writable_bundle(Path()))
    monkeypatch.chdir(bundle_copy.parent)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == bundle_copy)
    assert "is a mount point" in refusal(UsageError, lambda: writable_bundle(bundle_copy))


def test_a_folder_of_the_same_file_system_that_is_mounted_is_refused(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    """Docker's `-v` makes such a mount, which only the list of mounts shows."""
    place = bundle_copy.rename(bundle_copy.with_name("a b\\c"))
    escaped = str(place).replace("\\", "\\134").replace(" ", "\\040")
    root = "29 1 8:1 / / rw - ext4\n"
    (bundle_copy.parent / "mounts").write_text(f"{root}99 29 8:1 /home/x {escaped} rw,relatime - ext4\n")
    monkeypatch.setattr(older_bundle, "_MOUNTS", bundle_copy.parent / "mounts")
    assert "is a mount point" in refusal(UsageError, lambda: writable_bundle(place))
    (bundle_copy.parent / "mounts").write_text(root)
    assert writable_bundle(place) == place


def test_an_older_bundles_files_are_hashed_once(
    write: Callable[[Path], None], bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    """Before the compiler works, and not again for the exchange and the removal; what was changed since is."""
    monkeypatch.setattr(older_bundle, "_SETTLED", -1)
    hashed: list[str] = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda stream, kind: hashed.append(stream.name) or real(stream, kind))
    write(bundle_copy)
    assert sorted(Path(name).name for name in hashed) == ["cpu.vmfb", "vmvx.vmfb", "vulkan.vmfb"]
    writable_bundle(bundle_copy)
    content = (bundle_copy / "cpu.vmfb").read_bytes()
    (bundle_copy / "cpu.vmfb").write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert "holds 'cpu.vmfb', which is not what its manifest lists" in refusal(
        UsageError, lambda: writable_bundle(bundle_copy)
    )


@pytest.mark.parametrize("at", ["nothing", "empty", "bundle", "bundle, late"])
@pytest.mark.parametrize("exchange", [True, False])
def test_what_appears_meanwhile_stays(
    write: Callable[[Path], None],
    bundle_copy: Path,
    at: str,
    exchange: bool,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Refusal,
) -> None:
    """A file appears while the compiler works, or at the moment of the exchange."""
    folder = bundle_copy.parent
    if at in ("nothing", "empty"):
        shutil.rmtree(bundle_copy)
    if at == "empty":
        bundle_copy.mkdir()
    if not exchange:
        monkeypatch.setattr(bundle_writer, "sys", type("Other", (), {"platform": "other"}))
    name = "foreign_in" if at == "bundle, late" else "_umask"
    real = getattr(bundle_writer, name)

    def meanwhile(*arguments: Any) -> Any:
        result = real(*arguments)
        if not (bundle_copy / "photo.jpg").exists():
            bundle_copy.mkdir(exist_ok=True)
            (bundle_copy / "photo.jpg").write_text("mine")
        return result

    old = everything_in(bundle_copy)
    monkeypatch.setattr(bundle_writer, name, meanwhile)
    message = refusal(SonewError, lambda: write(bundle_copy))
    assert "'photo.jpg' appeared there" in message or (at == "nothing" and "'tiny' appeared" in message)
    kept = Path(message.rpartition("the new bundle is ")[2])
    open_bundle(kept).verify()
    assert not kept.name.startswith(".")
    if kept.parent == bundle_copy:
        shutil.rmtree(kept)
    assert everything_in(bundle_copy) == old | {"photo.jpg": b"mine"}
    assert {path.name for path in folder.iterdir()} <= {"tiny", kept.name}


def test_what_a_killed_process_left_is_removed(write: Callable[[Path], None], bundle_copy: Path) -> None:
    """An exchanged older bundle and files without a manifest are removed, but not another process's folder."""
    folder = bundle_copy.parent
    shutil.copytree(bundle_copy, folder / ".tiny-abcdefgh")
    (folder / ".tiny-ijklmnop").mkdir()
    (folder / ".tiny-ijklmnop" / "cpu.vmfb").write_text("half")
    shutil.copytree(bundle_copy, folder / ".tiny-qrstuvwx")
    (folder / ".tiny-qrstuvwx" / "photo.jpg").write_text("mine")
    with locked_folder(folder, ".tiny-") as working:
        write(bundle_copy)
    assert {path.name for path in folder.iterdir()} == {"tiny", ".tiny-qrstuvwx", working.name}
    assert (folder / ".tiny-qrstuvwx" / "photo.jpg").exists()


def test_a_full_disk_leaves_the_older_bundle(
    write: Callable[[Path], None], bundle_copy: Path, full_disk: Callable[..., Any], refusal: Refusal
) -> None:
    before = everything_in(bundle_copy.parent)
    with full_disk(after=1000):
        message = refusal(SonewError, lambda: write(bundle_copy))
    assert "cannot write the bundle" in message
    assert everything_in(bundle_copy.parent) == before


def test_removal_can_be_done_again(bundle_copy: Path) -> None:
    (bundle_copy / "cpu.vmfb").unlink()
    assert remove_bundle(bundle_copy) == ""
    assert not bundle_copy.exists()
    bundle_copy.mkdir()
    assert remove_bundle(bundle_copy) == ""
