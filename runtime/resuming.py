"""The checks that a resumed run continues the same training."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

from sonew_compiled.contract import STABLEHLO_FILE
from sonew_compiled.errors import SonewError, UsageError, counted, on_one_line
from sonew_compiled.runtime.bundle import Bundle
from sonew_compiled.runtime.checkpoint import Checkpoint, load_checkpoint
from sonew_compiled.runtime.folder import RunFolder
from sonew_compiled.runtime.shown import argument, shown
from sonew_compiled.train_settings import TrainSettings, train_options

_LONGEST_WORDS = 5_000


def header_of(bundle: Bundle, *, data: str, fingerprint: str) -> dict[str, str]:
    """The bundle and the data of a checkpoint's run, as its header names them."""
    return {
        "batch_size": str(bundle.manifest.batch_size),
        "data": data,
        "data_fingerprint": fingerprint,
        "compiled": _compiled(bundle),
        "bundle": bundle.digest,
        "program": spec.sha256 if (spec := bundle.manifest.files.get(STABLEHLO_FILE)) else "",
    }


def load_to_resume(
    path: Path, bundle: Bundle, header: Mapping[str, str], *, settings: TrainSettings, steps_per_epoch: int
) -> Checkpoint:
    """Loads a checkpoint, and checks it against the run that is to continue it.

    Args:
      path: the file of the checkpoint.
      bundle: the bundle of the run.
      header: the header of the run's checkpoints, from `header_of`.
      settings: the settings of the run.
      steps_per_epoch: the steps of each.

    Raises:
      UsageError: they differ in something that a resumed run cannot change, or the run would end before the checkpoint.
      SonewError: the checkpoint cannot be read, or does not fit the bundle.
    """
    checkpoint = load_checkpoint(path, bundle.manifest)
    _check_alike(path, checkpoint.settings, bundle, header)
    steps = settings.epochs * steps_per_epoch
    if checkpoint.step > steps:
        all_steps = f"{counted(steps, 'step')} of {counted(settings.epochs, 'epoch')}"
        raise UsageError(f"{path} is at step {checkpoint.step}, beyond the {all_steps}: choose more --epochs")
    if settings.max_steps is not None and checkpoint.step > settings.max_steps:
        raise UsageError(
            f"{path} is at step {checkpoint.step}, beyond --max-steps {settings.max_steps}: give more, or leave it out"
        )
    return checkpoint


def _check_alike(path: Path, had: Mapping[str, str], bundle: Bundle, header: Mapping[str, str]) -> None:
    data = on_one_line(had.get("data", "unknown")[:200])
    for key, what, remedy in (
        ("batch_size", "batch size", "compile the bundle with its --batch-size"),
        ("data_fingerprint", "data with fingerprint", f"give the --data it had, {data}"),
        *((option.name, option.name, f"leave out {option.flag}") for option in train_options() if option.is_fixed),
    ):
        if had.get(key) != header[key]:
            raise UsageError(
                f"{path} was trained with {what} {on_one_line(had.get(key, 'unknown')[:12])}, this run has "
                f"{header[key][:12]}: {remedy}"
            )
    compiled = had.get("compiled", header["compiled"])  # older checkpoints do not say
    if compiled != header["compiled"]:
        raise UsageError(
            f"{path} was trained with {on_one_line(compiled[:1000])}, the bundle has {header['compiled']}: "
            "use the bundle that it was trained with"
        )
    # The state's names and shapes are those of many models, and settings are known of this package's optimizers alone.
    if had.get("program") and header["program"] and had["program"] != header["program"]:
        raise UsageError(
            f"{path} was trained by another program than that of {bundle.path}: its model, optimizer or release was "
            f"another; use the bundle that it was trained with, or begin with its weights, --params {argument(path)}"
        )
    # A bundle that is named may be another one of the same program, for another device.
    if RunFolder(path.parent).owns(bundle.path) and had.get("bundle", bundle.digest) != bundle.digest:
        raise UsageError(
            f"{path} was trained from another bundle than {bundle.path}: give that one, by sonew run BUNDLE --resume"
        )


def loss_sum(path: Path, checkpoint: Checkpoint) -> float:
    """The sum of an epoch's losses up to the checkpoint.

    Raises:
      SonewError: the checkpoint has no such number.
    """
    said = checkpoint.settings.get("epoch_loss_sum", "0")
    try:
        value = float(said)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SonewError(f"{path} has an epoch_loss_sum of {shown(said)}, which is no finite number: it is corrupt")
    return value


def _compiled(bundle: Bundle) -> str:
    """The settings of the optimizer and of the step, and the precision, in words: the state's shapes show none."""
    manifest = bundle.manifest
    settings = {key: value for key, value in manifest.optimizer.items() if key not in ("name", "learning_rate")}
    given = [f"{key} {value}" for key, value in sorted(settings.items()) if value is not None]
    parts = [f"micro-batches of {manifest.micro_batch_size}"] if manifest.micro_batch_size else []
    parts += [f"an exchange of {manifest.exchange}"] if manifest.exchange != "f32" else []
    words = ", ".join([f"precision {manifest.precision}", *given, *manifest.step_in_words, *parts])
    # The header of a checkpoint is read within limits, and patterns can be many.
    shortened = f"{words[:_LONGEST_WORDS]}... (SHA-256 {hashlib.sha256(words.encode()).hexdigest()})"
    return words if len(words) <= _LONGEST_WORDS else shortened
