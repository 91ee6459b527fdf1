"""What a bundle's manifest says of values that its code would take and compute wrongly with."""

from __future__ import annotations

import math

from sonew_compiled.errors import UsageError
from sonew_compiled.runtime.manifest import Manifest


def check_setting(manifest: Manifest, name: str, value: float) -> None:
    """Checks a runtime setting against the dtype in which the bundle stores what it decays.

    Raises:
      UsageError: the decay is so slow that what is stored would never fall.
    """
    limit = manifest.setting_limits.get(name, math.inf)
    if limit <= value:
        raise UsageError(
            f"{name} is {value:g}, and what --precision {manifest.precision} stores of the optimizer's state stops "
            f"falling with decays of {limit:.6g} and more; give a smaller one, or compile with --precision "
            "bf16-mixed or f32"
        )
