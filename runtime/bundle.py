"""A bundle on disk: opening it, checking it against its manifest, and choosing code for a device."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sonew_compiled.contract import MANIFEST_FILE, Driver
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime._manifest_schema import LARGEST
from sonew_compiled.runtime.json_files import read_content
from sonew_compiled.runtime.manifest import Manifest, Needs, TargetSpec
from sonew_compiled.runtime.schema import Unfit
from sonew_compiled.runtime.shown import argument

_LOG = logging.getLogger(__name__)

_CPU_INFO = Path("/proc/cpuinfo")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, kw_only=True, repr=False)
class Bundle:
    """A directory written by `sonew compile`; made by `open_bundle`.

    Attributes:
      path: the path of the directory.
      manifest: the description of its contents.
      manifest_bytes: the bytes of the file that the manifest was read from; empty if it was not read from one.
      is_trusted: whether its code is loaded without a trial: a key that the user trusts has signed it, or this process
        made it.
    """

    path: Path
    manifest: Manifest
    manifest_bytes: bytes = b""
    is_trusted: bool = False

    def __repr__(self) -> str:
        return f"Bundle({self.path}: {self.manifest!r})"

    def read(self, name: str) -> bytes:
        """The content of a file of the bundle, after checking its size and SHA-256 against the manifest.

        The bytes that are checked are those that are returned, so the file cannot be exchanged in between.

        Raises:
          SonewError: the file is missing, or is not the one that the bundle was written with.
        """
        path = self.path / name
        spec = self.manifest.files.get(name)
        if spec is None or Path(name).name != name:
            raise SonewError(f"{self.path / MANIFEST_FILE} has no entry for {name!r}: {_REMEDY}")
        if not path.is_file():
            raise SonewError(f"{path} is missing from the bundle: {_REMEDY}")
        try:
            size = path.stat().st_size
            if size != spec.size:
                raise SonewError(
                    f"{path} has {size:,} bytes where the manifest says {spec.size:,}; it is "
                    f"{'truncated' if size < spec.size else 'of another bundle'}: {_REMEDY}"
                )
            content = path.read_bytes()
        except OSError as error:
            raise SonewError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
        digest = hashlib.sha256(content).hexdigest()
        if digest != spec.sha256:
            raise SonewError(
                f"{path} has SHA-256 {digest[:12]}... where the manifest says {spec.sha256[:12]}...; "
                f"it is corrupt or from another bundle: {_REMEDY}"
            )
        return content

    def file(self, name: str) -> Path:
        """The path of a file of the bundle, after `read` has checked it."""
        self.read(name)
        return self.path / name

    @property
    def digest(self) -> str:
        """The SHA-256 of the names and hashes of all its files, by which a checkpoint identifies its bundle."""
        files = sorted((name, spec.sha256) for name, spec in self.manifest.files.items())
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()

    def verify(self) -> None:
        """Checks every file that the manifest lists.

        Raises:
          SonewError: naming the first one that is missing or differs.
        """
        for name in self.manifest.files:
            self.read(name)


_REMEDY = "compile the bundle again with `sonew compile`"


def open_bundle(path: str | Path) -> Bundle:
    """Opens the bundle in the directory `path` and reads its manifest; the other files are checked when they are used.

    Raises:
      UsageError: there is no such directory, or it is not a bundle.
      SonewError: the manifest is truncated, corrupt or of a format version that this runtime does not read.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"there is no bundle at {path}: write one with `sonew compile -o {argument(path)}`")
    manifest = path / MANIFEST_FILE
    if not path.is_dir() or not manifest.is_file():
        raise UsageError(
            f"{path} is not a bundle, which is a directory with a {MANIFEST_FILE}: write one with `sonew compile`"
        )
    try:
        content = read_content(manifest, largest=LARGEST)
        text = content.decode()
    except OSError as error:
        raise SonewError(f"{manifest} cannot be read ({error.strerror}): check its permissions") from None
    except Unfit as error:
        raise SonewError(f"{manifest} cannot be read ({error}): {_REMEDY}") from None
    except UnicodeDecodeError:
        raise SonewError(f"{manifest} is not text, so it is corrupt: {_REMEDY}") from None
    _LOG.debug("bundle %s", path)
    return Bundle(path=path, manifest=Manifest.from_json(text, source=str(manifest)), manifest_bytes=content)


def _canonical(machine: str) -> str:
    """Linux's name of an instruction set, which other systems may spell differently."""
    return _MACHINES.get(machine.lower(), machine)


def cpu_flags() -> frozenset[str] | None:
    """The flags of this machine's processor from `/proc/cpuinfo`; None if there is no such file."""
    try:
        text = _CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(match.group(1).split()) if match else None


def why_not_here(target: Needs, devices: Mapping[str, str]) -> str:
    """The reason why this machine cannot run the target's code; empty if it can.

    Args:
      target: the code.
      devices: the driver's name for the device of each available kind, as `{"vulkan": "AMD Radeon ..."}`; the kinds are
        `local`, `vulkan`, `cuda`, `hip`.
    """
    if target.driver not in devices:
        return f"for {target.driver} devices"
    if target.driver != Driver.LOCAL:
        name = devices[target.driver]
        if not target.device_names or any(word in name.lower() for word in target.device_names):
            return ""
        return f"for devices of {' or '.join(target.device_names)}, this one is {name}"
    if target.machine and _canonical(target.machine) != _canonical(platform.machine()):
        return f"for {target.machine}, this machine is {platform.machine()}"
    flags = cpu_flags()
    # If the flags cannot be read (not Linux), only the instruction set is checked, since every bundle would be refused
    # otherwise.
    missing = [] if flags is None else [flag for flag in target.cpu_features if flag not in flags]
    if missing:
        return f"for {target.cpu or 'another processor'}, this one lacks {', '.join(missing)}"
    return ""


def as_bundle(bundle: Bundle | str | Path) -> Bundle:
    """An open bundle as it is, and that at a path opened, as `open_bundle` does it."""
    return bundle if isinstance(bundle, Bundle) else open_bundle(bundle)


def choose_target(bundle: Bundle, device: str, driver: str, description: str = "") -> TargetSpec:
    """The first target of the manifest that the device can run.

    Args:
      bundle: the bundle; the order of its targets is the order of preference.
      device: the device's name, for the error.
      driver: the kind of device: `local`, `vulkan`, `cuda` or `hip`.
      description: the device as its driver names it.

    Raises:
      SonewError: the bundle has no code for the device.
    """
    reasons = []
    for target in bundle.manifest.targets:
        reason = why_not_here(target, {driver: description})
        if not reason:
            return target
        reasons.append(f"{target.name} ({reason})")
    raise SonewError(
        f"the bundle {bundle.path} has no code for device {device}: it holds {', '.join(reasons) or 'no target'}; "
        f"add one with `sonew compile --target {Driver(driver).target}` or choose another --device"
    )
