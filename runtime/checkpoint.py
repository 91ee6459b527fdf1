"""Checkpoints: the whole training state, the step and the settings, in one safetensors file.

Format versions:
  1: the first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime import replacement
from sonew_compiled.runtime.dtypes import as_dtype, is_floating
from sonew_compiled.runtime.manifest import Manifest, TensorSpec
from sonew_compiled.runtime.shown import shown
from sonew_compiled.runtime.tensorfile import read_metadata, read_tensors, write_tensors

CHECKPOINT_FORMAT_VERSION = 1

_LOG = logging.getLogger(__name__)

_WHOLE = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, kw_only=True, repr=False)
class Checkpoint:
    """The contents of a checkpoint file.

    Attributes:
      step: the training steps done.
      tensors: the training state by name, with the tensors of `Manifest.state`.
      settings: the settings of the run as strings by name, which `TrainSettings` and `train` write.
    """

    step: int
    tensors: Mapping[str, np.ndarray]
    settings: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Checkpoint(step={self.step}, {len(self.tensors)} tensors)"


def checkpoint_path(directory: Path, step: int) -> Path:
    """The name of the checkpoint after `step` steps: `step-00001200.safetensors`."""
    return directory / f"step-{step:08d}.safetensors"


def save_checkpoint(directory: str | Path, checkpoint: Checkpoint, manifest: Manifest) -> Path:
    """Writes a checkpoint atomically and returns its path.

    Raises:
      SonewError: a tensor holds NaN or infinity, or the file cannot be written; earlier checkpoints stay.
    """
    name = first_not_finite(checkpoint.tensors)
    if name:
        raise SonewError(f"{name!r} holds NaN or infinity at step {checkpoint.step}, from which training cannot go on")
    path = checkpoint_path(Path(directory), checkpoint.step)
    metadata = {
        "format_version": str(CHECKPOINT_FORMAT_VERSION),
        "step": str(checkpoint.step),
        "model": manifest.model,
        "optimizer": optimizer_name(manifest),
        "precision": manifest.precision,
        "unit": manifest.unit,
        "signature": signature(manifest),
        **checkpoint.settings,
    }
    started = time.perf_counter()
    write_tensors(path, checkpoint.tensors, metadata)
    _LOG.debug("wrote %s in %.2f s", path, time.perf_counter() - started)
    return path


def load_checkpoint(path: str | Path, manifest: Manifest) -> Checkpoint:
    """Reads a checkpoint of this bundle's model and optimizer.

    Args:
      path: a checkpoint, or a directory for the latest one in it.
      manifest: the manifest of the bundle that resumes from it.

    Raises:
      UsageError: there is no such file.
      SonewError: the file is truncated, corrupt, of a newer format, or of another model; the message says
        what differs.
    """
    path = find_checkpoint(path)
    metadata = read_checkpoint_metadata(path)
    remedy = "use the bundle that it was trained with"
    for key, value in (("model", manifest.model), ("optimizer", optimizer_name(manifest))):
        if metadata[key] != value:
            raise SonewError(
                f"{path} is a checkpoint of {key} {shown(metadata[key])}, the bundle has {value!r}: {remedy}"
            )
    tensors = read_tensors(path)
    difference = first_difference(tensors, manifest.state)
    if difference or metadata["signature"] != signature(manifest):
        raise SonewError(f"{path} is a checkpoint of another model: {difference or 'its signature differs'}; {remedy}")
    return Checkpoint(step=int(metadata["step"]), tensors=tensors, settings=metadata)


def read_checkpoint_metadata(path: Path) -> dict[str, str]:
    """The step and the settings of a checkpoint file, without its tensors.

    Raises:
      UsageError: there is no such file.
      SonewError: the file is no checkpoint, or of a format version that this runtime does not read.
    """
    metadata = read_metadata(path)
    version = metadata.get("format_version", "")
    required = ("step", "model", "optimizer", "signature", "sha256")
    if not _WHOLE.fullmatch(version) or any(key not in metadata for key in required):
        raise SonewError(f"{path} is not a checkpoint of `sonew run`: its header lacks the step and the model")
    if not _WHOLE.fullmatch(metadata["step"]):
        raise SonewError(f"{path} is not a checkpoint of `sonew run`: its step is {shown(metadata['step'])}")
    if int(version) > CHECKPOINT_FORMAT_VERSION:
        raise SonewError(
            f"{path} has checkpoint format version {version}; this runtime reads up to {CHECKPOINT_FORMAT_VERSION}: "
            "upgrade sonew-compiled"
        )
    return metadata


def is_checkpoint(path: Path) -> bool:
    """Whether a safetensors file says that it is a checkpoint, of any version.

    Raises:
      UsageError: there is no such file.
      SonewError: the file is not a whole safetensors file.
    """
    return "format_version" in read_metadata(path)


def find_checkpoint(path: str | Path) -> Path:
    """`path` itself, or the latest checkpoint in it if it is a directory.

    Raises:
      UsageError: there is no checkpoint.
      SonewError: the replacement of the run there was interrupted, and cannot be finished.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"there is no checkpoint at {path}: give a step-*.safetensors file or its directory")
        return path
    replacement.finish_abandoned(path)
    found = latest(path)
    if found is None:
        raise UsageError(f"there is no checkpoint (step-*.safetensors) in {path}: give the --output of an earlier run")
    return found


def list_checkpoints(directory: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a directory with their steps, the earliest first."""
    if not directory.is_dir():
        return []
    matches = ((replacement.CHECKPOINT_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match.group(1)), path) for match, path in matches if match)


def latest(directory: Path) -> Path | None:
    """The checkpoint with the most steps; None if the directory has none."""
    found = list_checkpoints(directory)
    return found[-1][1] if found else None


def prune(directory: Path, keep: int, best: int | None = None) -> None:
    """Removes all checkpoints but the `keep` with the most steps and that of step `best`.

    The files of processes killed while writing one go too.

    Args:
      directory: the directory of the checkpoints.
      keep: 1 or more.
      best: the step of a checkpoint that is kept whatever comes after it.
    """
    assert keep >= 1
    litter = [path for name in (".step-*.tmp", ".metrics.jsonl.*.tmp") for path in directory.glob(name)]
    for path in [path for step, path in list_checkpoints(directory)[:-keep] if step != best] + litter:
        # A checkpoint that cannot be removed is no reason to stop training.
        with contextlib.suppress(OSError):
            path.unlink()


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """A hash, in hexadecimal, of the names and bytes of arrays."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(name.encode())
        whole.update(np.ascontiguousarray(tensors[name]).tobytes())
    return whole.hexdigest()[:16]


def first_not_finite(arrays: Mapping[str, np.ndarray]) -> str:
    """The name of the first array that holds NaN or infinity; empty if there is none."""
    return next(
        (name for name, array in arrays.items() if is_floating(array.dtype) and not np.isfinite(array).all()), ""
    )


def first_difference(arrays: Mapping[str, np.ndarray], specs: tuple[TensorSpec, ...]) -> str:
    """The first difference of `arrays` from the tensors of `specs`, in words; empty if there is none."""
    for spec in specs:
        array = arrays.get(spec.name)
        if array is None:
            return f"it lacks {spec.name!r}"
        if array.shape != spec.shape:
            return f"{spec.name!r} has shape {list(array.shape)} where the bundle has {list(spec.shape)}"
        if array.dtype != as_dtype(spec.dtype):
            return f"{spec.name!r} has dtype {array.dtype} where the bundle has {spec.dtype}"
    names = {spec.name for spec in specs}
    return next((f"the bundle has no {shown(name)}" for name in arrays if name not in names), "")


def signature(manifest: Manifest) -> str:
    """A hash of the model's and the optimizer's names and of every tensor's name, shape and dtype."""
    tensors = [[spec.name, list(spec.shape), spec.dtype] for spec in manifest.state]
    text = json.dumps([manifest.model, optimizer_name(manifest), tensors])
    return hashlib.sha256(text.encode()).hexdigest()


def optimizer_name(manifest: Manifest) -> str:
    """The name of the bundle's optimizer."""
    return str(manifest.optimizer.get("name", ""))
