"""When and where a row was measured, and what disturbed the measurement meanwhile."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import statistics
import time
import uuid
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from sonew_compiled.bench._machine import cpu_model, threads
from sonew_compiled.errors import counted

# From these shares on, a row has a warning.
_OTHERS = 0.05
_STOLEN = 0.02
_SLOWER = 1.1
_TAIL = 1.5

_SWAPPED_BYTES = 16 << 20
_THROTTLED = "devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"
_SYS = Path("/sys")


@functools.cache
def machine_id() -> str:
    """Twelve hexadecimal digits that tell this machine from others, as long as it keeps its name and its threads.

    They are a hash of what the system has for the purpose. Copies of a system's image share its `machine-id`, and
    containers their network address, so that the name is part of it.
    """
    address = uuid.getnode()
    is_random = bool(address >> 40 & 1)  # Python found no network card
    known = [_system_id(), 0 if is_random else address, platform.node(), cpu_model(), threads()]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:12]


def _system_id() -> str:
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
    return ""


class Watch:
    """Watches the machine: what else runs, and whether the processor slows down."""

    def __init__(self, host: str | None) -> None:
        """Begins to look; `host` is the name of the machine in the row, None to leave it out."""
        self._host = host
        self._date = datetime.now(UTC)
        self._started = time.monotonic()
        self._load = _load()
        self._times, self._own = psutil.cpu_times(), _own_seconds()
        self._swapped, self._throttled = _swapped_bytes(), _throttle_count()

    def described(self, stretches: Sequence[float] = ()) -> dict[str, Any]:
        """The fields of a row from `date` to `warnings`.

        Args:
          stretches: medians of the steps' seconds over stretches of the run, in order.
        """
        return {
            "date": self._date.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "machine_id": machine_id(),
            "host": self._host,
            "memory_bytes": psutil.virtual_memory().total,
            "load_before": self._load,
            "load_after": _load(),
            "warnings": [*self._warnings(), *unsteadiness(stretches)],
        }

    def _warnings(self) -> list[str]:
        elapsed = max(time.monotonic() - self._started, 1e-9) * (psutil.cpu_count() or 1)
        now = psutil.cpu_times()
        stolen = (getattr(now, "steal", 0.0) - getattr(self._times, "steal", 0.0)) / elapsed
        others = (_busy(now) - _busy(self._times) - (_own_seconds() - self._own)) / elapsed
        swapped = _swapped_bytes() - self._swapped
        found = {
            # Only POSIX counts the processor time of children, which do the work.
            f"other programs took {others:.0%} of the processors": os.name == "posix" and others >= _OTHERS,
            f"other virtual machines took {stolen:.0%} of the processors": stolen >= _STOLEN,
            f"the processor throttled itself {counted(_throttle_count() - self._throttled, 'time')}": (
                _throttle_count() > self._throttled
            ),
            f"{swapped / 1e6:,.0f} MB were swapped": swapped >= _SWAPPED_BYTES,
            "the machine runs on its battery": _is_on_battery(),
        }
        return [warning for warning, holds in found.items() if holds]


def _is_on_battery() -> bool:
    """Whether there is a battery in use; False where the system does not tell, as without /sys."""
    try:
        battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    except OSError:
        return False
    return battery is not None and not battery.power_plugged


def unsteadiness(stretches: Sequence[float]) -> list[str]:
    """Warnings of steps that became slower, or were not alike, from medians over stretches of the run."""
    if len(stretches) < 3:
        return []
    third = len(stretches) // 3
    slower = statistics.median(stretches[-third:]) / statistics.median(stretches[:third])
    tail = max(stretches) / statistics.median(stretches)
    if slower >= _SLOWER:
        return [f"steps took {slower - 1:.0%} longer in the last third than in the first"]
    return [f"a stretch of the steps took {tail:.1f} times as long as the median one"] if tail >= _TAIL else []


def _load() -> float | None:
    """The load average of a minute; None if the system has none."""
    try:
        return float(psutil.getloadavg()[0])
    except OSError:
        return None


def _busy(times: Any) -> float:
    """The seconds that all processors have worked for programs and the system."""
    return float(times.user + times.system + getattr(times, "nice", 0.0))


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _swapped_bytes() -> int:
    with warnings.catch_warnings():  # of systems that do not tell
        warnings.simplefilter("ignore", RuntimeWarning)
        swap = psutil.swap_memory()
    return int(swap.sin + swap.sout)


def _throttle_count() -> int:
    """How often the cores have slowed down for heat since the start, as far as Linux tells."""
    found = 0
    for path in _SYS.glob(_THROTTLED):
        try:
            found += int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
    return found
