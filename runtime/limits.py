"""Limits in a bundle's manifest on values for which its code would compute wrongly."""

from __future__ import annotations

import math

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
