"""The format of a row: its check, and how rows of an earlier schema are read."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sonew_compiled.runtime.schema import (
    SCALAR,
    Unfit,
    anything,
    integer,
    listed,
    mapped,
    nullable,
    number,
    path_text,
    record,
    text,
)

Row = dict[str, Any]

SCHEMA = 2
"""The version of the rows that are written. Version 1 had no `schema`, nor anything that told machines apart."""

UNKNOWN_MACHINE = "unknown"

NOT_ANEW = (
    "the row is of an earlier release, which did not measure the limit anew, and counted operations that few steps do"
)
"""Why a share of a row of schema 1 is above 1."""

# The fields of a row that the table, the plots and the page read are checked; other fields stay as they are.
_NAME = text(100)
_SETTINGS = record(
    {
        "optimizer": record({"name": _NAME}, others=SCALAR),
        **dict.fromkeys(("precision", "target", "device"), _NAME),
        "batch_size": integer(),
    },
    {"data": path_text(), "model": text(1000)},
    others=SCALAR,
)
_CURVE = record({"epoch": integer(), "step": integer(), "seconds": number(0), "loss": nullable(number())})
_GOAL = record({"loss": number(), "steps": nullable(integer()), "seconds": nullable(number(0))})
_MACHINE = record(
    {
        **{name: text() for name in ("cpu", "platform", "device", "device_description")},
        "threads": integer(),
        "cpu_features": listed(_NAME, 1_000),
    },
    others=anything,
)
_LIMITS = record(
    {"copy_bytes_per_second": number(1), "flops_per_second": number(1)}, {"how": text(1000)}, others=anything
)
FIGURES = (
    *("train_loss", "test_loss", "seconds", "first_step_seconds", "step_p50_seconds", "step_p95_seconds", "ratio"),
    *("optimizer_share", "gflops", "flops_share", "gbps", "bandwidth_share", "state_bytes_per_parameter"),
    *("peak_resident_bytes", "compile_seconds", "artifact_bytes", "code_bytes", "registers", "spilled_bytes"),
    *("step_flops", "step_bytes", "update_seconds"),
)
"""The keys of a row that hold one number or null."""
ROW = record(
    {"kind": _NAME, "settings": _SETTINGS},
    {
        "schema": integer(1, SCHEMA),
        "date": text(40),
        "machine_id": _NAME,
        "host": nullable(_NAME),
        "memory_bytes": integer(),
        "warnings": listed(text(300), 20),
        "caveat": text(300),
        "error": nullable(text(10_000, printable=False)),
        "versions": mapped(text(), 100),
        "bundle": nullable(_NAME),
        "machine": nullable(_MACHINE),
        "curve": listed(_CURVE, 100_000),
        "to_loss": nullable(listed(_GOAL, 100)),
        "step_stretches_seconds": listed(number(0), 100),
        "roofline": nullable(_LIMITS),
        "share_reasons": mapped(text(300), 10),
        **{name: nullable(number()) for name in ("load_before", "load_after", *FIGURES)},
    },
    others=anything,
)
"""The check of a row of any schema that is read."""


def check_row(value: object, place: str) -> Row:
    """A row of this schema or an earlier one, in the form of this one.

    Raises:
      Unfit: the value is no row, or one of a later schema.
    """
    if isinstance(value, dict) and isinstance(value.get("schema"), int) and value["schema"] > SCHEMA:
        raise Unfit(f"{place} has schema {value['schema']}, of a later sonew-compiled, which reads up to {SCHEMA}")
    row: Row = ROW(value, place)
    if "machine_id" not in row:
        over = [key for key in ("flops_share", "bandwidth_share") if (row.get(key) or 0.0) > 1]
        row = row | {
            "schema": SCHEMA,
            "machine_id": _id_of_description(row.get("machine")),
            "share_reasons": dict.fromkeys(over, NOT_ANEW),
        }
    return row


def _id_of_description(machine: dict[str, Any] | None) -> str:
    """The id of a machine in rows of schema 1, which have none: a hash of its description."""
    if machine is None:
        return UNKNOWN_MACHINE
    known = [machine[key] for key in ("cpu", "cpu_features", "threads", "platform")]
    return "old-" + hashlib.sha256(json.dumps(known).encode()).hexdigest()[:8]
