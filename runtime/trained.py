"""Weights on a device, to evaluate, predict with, or write out: from a checkpoint, a file of weights, or the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonew_compiled.contract import PARAMETERS_FILE
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.bundle import Bundle, as_bundle
from sonew_compiled.runtime.checkpoint import find_checkpoint, is_checkpoint, load_checkpoint, read_checkpoint_metadata
from sonew_compiled.runtime.device import Buffer
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.shown import shown
from sonew_compiled.runtime.weights import NPZ, as_parameters, load_weights, read_weights


@dataclass(frozen=True, kw_only=True, repr=False)
class Trained:
    """The weights of a bundle's model.

    Attributes:
      arrays: the parameters and the model's state by name. If the model is evaluated with averages of parameters, they
        are in the parameters' places, unless the raw parameters were asked for.
      path: the file that they are from.
      step: the training steps that were done; None if the file is no checkpoint.
      settings: the settings of the run as strings; empty if the file is no checkpoint.
    """

    arrays: Mapping[str, np.ndarray]
    path: Path
    step: int | None
    settings: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Trained({len(self.arrays)} tensors of {self.path}, step={self.step})"

    def upload(self, program: Program) -> dict[str, Buffer]:
        """A copy on the program's device, which `evaluate` and `predict` take."""
        evaluated = program.manifest.evaluated
        return {
            spec.name: program.upload(spec, self.arrays[named.name])
            for spec, named in zip(evaluated, as_parameters(evaluated), strict=True)
        }


def load_trained(bundle: Bundle | str | Path, path: str | Path | None = None, *, raw: bool = False) -> Trained:
    """The weights with which to evaluate a bundle's model.

    Args:
      bundle: the bundle of the model, open or the path of one.
      path: a checkpoint, a run's folder for its latest one, or a file as `load_weights` reads it; by default the
        bundle's own weights.
      raw: whether to take the parameters of a checkpoint that has averages of them.

    Raises:
      UsageError: there is no such file, the bundle has no weights of its own, or the file lacks the model's state.
      SonewError: the file is damaged, or is of another model.
    """
    bundle = as_bundle(bundle)
    manifest = bundle.manifest
    if path is None:
        if PARAMETERS_FILE not in manifest.files:
            raise UsageError(f"{bundle.path} holds no weights: give --checkpoint, a run's folder or a file of weights")
        path = bundle.file(PARAMETERS_FILE)
    path = Path(path)
    if path.suffix != NPZ:
        path = find_checkpoint(path)
    evaluated = manifest.evaluated
    named = as_parameters(evaluated)
    if path.suffix == NPZ or not is_checkpoint(path):
        weights = read_weights(path, named)
        if missing := next((spec.name for spec in named if spec.name not in weights), ""):
            raise UsageError(
                f"{path} lacks {missing}, which the model's evaluation reads: give a checkpoint, or a file of "
                "`sonew export`"
            )
        return Trained(arrays=weights, path=path, step=None, settings={})
    if manifest.is_trainable:
        checkpoint = load_checkpoint(path, manifest)
        step, settings = checkpoint.step, checkpoint.settings
        tensors = checkpoint.tensors
        arrays = {
            each.name: tensors[each.name].astype(as_dtype(each.dtype)) if raw else tensors[spec.name]
            for spec, each in zip(evaluated, named, strict=True)
        }
    else:
        settings = read_checkpoint_metadata(path)
        if settings["model"] != manifest.model:
            raise SonewError(
                f"{path} is a checkpoint of model {shown(settings['model'])}, the bundle has {manifest.model!r}: use "
                "the bundle that it was trained with"
            )
        arrays, step = load_weights(path, manifest, raw=raw), int(settings["step"])
    return Trained(arrays=arrays, path=path, step=step, settings=settings)
