"""The rates that a run attained, as shares of the measured limits, and why a share can be more than the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sonew_compiled.bench._row_format import NOT_ANEW

_QUICK = "the compiled products are quicker than the product that the limit was measured with"
_NARROW = "the limit is that of a float32 product, and products of 16-bit numbers are quicker"
COPY_READS_MORE = (
    "a copy reads each line of memory that it writes, which is not counted, and an update writes lines that it has "
    "read; small states stay in the caches"
)
"""Why an update can be quicker than a copy of as many bytes."""

REASONS = (_QUICK, _NARROW, COPY_READS_MORE, NOT_ANEW)
"""The reasons of shares above 1, as the notes of the table number them."""


def shares(measured: Mapping[str, Any], limits: Mapping[str, float]) -> dict[str, float]:
    """`flops_share`, and `bandwidth_share` if the update alone was timed; each is 1 at the limit."""
    found = {"flops_share": _flops(measured) / limits["flops_per_second"]}
    if "update_seconds" in measured:
        found["bandwidth_share"] = _bandwidth(measured) / limits["copy_bytes_per_second"]
    return found


def described(measured: Mapping[str, Any], limits: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """The fields of a row with its rates, their shares of the limits, and a reason for each share above 1."""
    found = shares(measured, limits)
    reasons = {"flops_share": _QUICK if precision == "f32" else _NARROW, "bandwidth_share": COPY_READS_MORE}
    row = {"roofline": dict(limits), "gflops": _flops(measured) / 1e9, **found}
    if "update_seconds" in measured:
        row["gbps"] = _bandwidth(measured) / 1e9
    return row | {"share_reasons": {name: reasons[name] for name, share in found.items() if share > 1}}


def sharpened(limits: Mapping[str, Any], again: Mapping[str, Any]) -> dict[str, Any]:
    """The higher of two measurements of each limit: other programs can only lower it."""
    return {key: max(value, again[key]) if isinstance(value, float) else value for key, value in limits.items()}


def _flops(measured: Mapping[str, Any]) -> float:
    return float(measured["step_flops"] / measured["step_p50_seconds"])


def _bandwidth(measured: Mapping[str, Any]) -> float:
    return float(measured["update_bytes"] / measured["update_seconds"])
