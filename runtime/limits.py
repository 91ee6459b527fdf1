"""The limits of a bundle: settings and weights with which its code would compute wrong numbers."""

from __future__ import annotations

import math
from pathlib import Path

from sonew_compiled.errors import UsageError
from sonew_compiled.runtime.manifest import Manifest


def check_setting(manifest: Manifest, name: str, value: float) -> None:
    """Checks a runtime setting that is a decay against the dtype of the stored average.

    Raises:
      UsageError: the decay is so slow that the stored average would never fall.
    """
    limit = manifest.setting_limits.get(name, math.inf)
    if limit <= value:
        raise UsageError(
            f"{name} is {value:g}, and what --precision {manifest.precision} stores of the optimizer's state stops "
            f"falling with decays of {limit:.6g} and more; give a smaller one, or compile with --precision "
            "bf16-mixed or f32"
        )


def check_start(manifest: Manifest, *, given: str) -> None:
    """Checks that training can start from other parameters than those of `init`.

    Args:
      manifest: the bundle's manifest.
      given: names the parameters in the error.

    Raises:
      UsageError: the first state of the optimizer is computed from the parameters, by code that only `init` has.
    """
    computed = next((name for name, source in manifest.starts_from.items() if not source), "")
    if computed:
        raise UsageError(
            f"training cannot start from {given}: {computed} of the optimizer's first state is computed from those of "
            "`init`; choose another optimizer"
        )


def check_trainable(manifest: Manifest, path: Path) -> None:
    """Checks that a bundle trains.

    Raises:
      UsageError: it is for inference alone.
    """
    if not manifest.is_trainable:
        raise UsageError(f"{path} is for inference alone: train the bundle that it was exported from")
