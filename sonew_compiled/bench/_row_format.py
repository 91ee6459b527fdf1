"""The format of a row: its check, and how rows of an earlier schema are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sonew_compiled.runtime.schema import (
    SCALAR,
    Check,
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
from sonew_compiled.step_settings import NUMBERS, PATTERNS

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
STEP: Mapping[str, Check] = {
    **{each.name: number() for each in NUMBERS},
    **dict.fromkeys(PATTERNS, listed(text(1000), 100)),
}
"""The checks of what a step does besides its optimizer; a setting that is not given has no field."""
_SETTINGS = record(
    {
        "optimizer": record({"name": _NAME}, others=SCALAR),
        **dict.fromkeys(("precision", "target", "device"), _NAME),
        "batch_size": integer(),
    },
    {"data": path_text(), "model": text(1000), "step": record({}, STEP, others=SCALAR)},
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
_NEEDED: dict[str, tuple[Check, str]] = {
    "kind": (
        _NAME,
        "`train`, `time` (steps only), `static` (compiled only), or what the compiled step is compared with: `jax`, "
        "`torch-eager`, `torch-compile`",
    ),
    "settings": (
        _SETTINGS,
        "the settings of the run, by which its rows are found again; `step` has what a step does besides its "
        "optimizer, if anything",
    ),
}
_OTHERS: dict[str, tuple[Check, str]] = {
    "schema": (integer(1, SCHEMA), "the version of the format"),
    "date": (text(40), "when the run began, in UTC"),
    "machine_id": (_NAME, "a hash of the machine's name, system, processor and threads"),
    "host": (nullable(_NAME), "the machine's name, or that of `--host`"),
    "memory_bytes": (integer(), "the memory of the machine"),
    "warnings": (
        listed(text(300), 20),
        "what disturbed the run: other programs, throttling, swapping, a battery, steps that became slower",
    ),
    "caveat": (text(300), "what the suite's figures do not show"),
    "error": (nullable(text(10_000, printable=False)), "why the run failed"),
    "versions": (mapped(text(), 100), "the versions of the packages, by name"),
    "bundle": (nullable(_NAME), "the digest of the bundle's manifest"),
    "machine": (nullable(_MACHINE), "the processor, its features and threads, the system and the device"),
    "curve": (listed(_CURVE, 100_000), "for each epoch the steps and seconds at its end, and its mean training loss"),
    "to_loss": (
        nullable(listed(_GOAL, 100)),
        "for each target loss the steps and seconds at the end of the first epoch whose mean training loss is at most "
        "that",
    ),
    "step_stretches_seconds": (listed(number(0), 100), "the median step in each of ten stretches of the run"),
    "roofline": (nullable(_LIMITS), "the measured copy bandwidth and arithmetic peak, and how they were measured"),
    "share_reasons": (mapped(text(300), 10), "why a share is above 1, by its field"),
    "load_before": (nullable(number()), "the system's load average before the run"),
    "load_after": (nullable(number()), "the load average after it"),
}
_FIGURES = {
    "train_loss": "the mean over the training split after the last epoch",
    "test_loss": "the mean over the test split after the last epoch",
    "seconds": "the time of training, without compiling, starting and the final two losses",
    "first_step_seconds": "the time of the first step",
    "step_p50_seconds": "the median of the other steps as a user waits for them: the next batch, the step, the loss",
    "step_p95_seconds": "their 95th percentile",
    "ratio": "the compiled bare step's time over that of this row",
    "optimizer_share": "the time of the update alone over that of the bare step",
    "gflops": "the operations of a step over its median time, in GFLOP/s",
    "flops_share": "the same as a share of the measured peak",
    "gbps": "the bytes that an update must move over its time, in GB/s",
    "bandwidth_share": "the same as a share of the measured copy",
    "state_bytes_per_parameter": "parameters, statistics and the rest of the state, as stored",
    "peak_resident_bytes": "the most memory of the run's process; for a comparison, of the process with both sides",
    "compile_seconds": "the time of trace, passes and `iree-compile`; of `jax`, of the first call",
    "artifact_bytes": "the size of the executable's file",
    "code_bytes": "the size of the machine code in it",
    "registers": "the most registers of any kernel, as the GPU's assembler says",
    "spilled_bytes": "the most bytes that any kernel spills",
    "step_flops": "the operations of the unoptimized float32 step, as XLA counts them",
    "step_bytes": "the fewest bytes that a step can move: every argument and every result once",
    "update_seconds": "the median time of the update alone",
}

MEANINGS: Mapping[str, str] = {
    **{name: meaning for name, (_, meaning) in (_NEEDED | _OTHERS).items()},
    **_FIGURES,
}
"""What each field holds. Those from `train_loss` on are one number, or null."""

ROW = record(
    {name: check for name, (check, _) in _NEEDED.items()},
    {**{name: check for name, (check, _) in _OTHERS.items()}, **dict.fromkeys(_FIGURES, nullable(number()))},
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
