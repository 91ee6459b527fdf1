"""Compiles the training step of each kind of model for each target, for the table of docs/reference/targets.md.

What this machine can run trains for some steps, and is compared with JAX tensor by tensor.

    python tools/kind_targets.py --output docs/results/kinds-targets.jsonl
    python tools/kind_targets.py --kind GPT --target cuda --output part.jsonl

Rows of the same compiler that are already in the output file are skipped, so an interrupted run goes on.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import click
from agreement.compare import compiled, differences
from agreement.kinds import KINDS
from agreement.oracle import Oracle
from agreement.rows import by_optimizers
from target_table import compiler, read_rows

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.lowering.targets import resolve_targets
from sonew_compiled.runtime import list_devices, why_not_here

TARGETS = (
    *("cpu", "cpu:x86-64-v2", "cpu:znver5", "cpu:aarch64", "cpu:aarch64+bf16", "cpu:riscv64", "vmvx"),
    *("vulkan", "vulkan:adreno", "cuda:sm_80", "rocm:gfx942", "metal", "tpu:v5e"),
)
"""The targets of the table: of each family one, and processors with either kind of units for bfloat16 and without."""

RATE, STEPS = 1e-3, 5

_SAID = {
    "agrees": "run as in JAX",
    "compiled": "compiled",
    "refused": "refused",
    "differs": "differ from JAX",
    "failed": "failed",
}

Row = dict[str, str]


def rows_of(kind: str, targets: Sequence[str]) -> list[Row]:
    """Compiles for all targets at once or, if that fails, for each alone; in a process of its own, for crashes.

    The software Vulkan driver's threads would keep the cores busy to the end of the process, too.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_rows, kind, targets).result()
        except BrokenProcessPool as error:
            if len(targets) == 1:
                return [_row(kind, targets[0], "failed", f"the process ended: {error}")]
    return [row for target in targets for row in rows_of(kind, [target])]


def _rows(kind: str, targets: Sequence[str]) -> list[Row]:
    (case,) = by_optimizers({kind: KINDS[kind]}, ("adam",)).values()
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle = compiled(case, Path(folder, "bundle"), targets, rate=RATE, evaluates=False)
        except Exception as error:  # any exception but a refusal is a find
            if len(targets) > 1:
                return [row for target in targets for row in _rows(kind, [target])]
            outcome = "refused" if isinstance(error, UsageError) else "failed"
            named = "" if isinstance(error, SonewError) else f"{type(error).__name__}: "
            return [_row(kind, targets[0], outcome, named + str(error))]
        oracle, rows = Oracle(case, RATE), []
        here = {each.driver: each for each in list_devices()}
        for target in bundle.manifest.targets:
            if why_not_here(target, {driver: each.description for driver, each in here.items()}):
                rows.append(_row(kind, target.name, "compiled"))
                continue
            found = differences(
                oracle, bundle, target.name, here[target.driver].name, steps=1, chained=STEPS, evaluates=False
            )
            rows.append(_row(kind, target.name, "differs" if found else "agrees", "; ".join(found)[:300]))
            gc.collect()
        return rows


def _row(kind: str, target: str, outcome: str, reason: str = "") -> Row:
    return {"kind": kind, "target": target, "compiler": compiler(), "outcome": outcome, "reason": reason}


def markdown(rows: Iterable[Row]) -> str:
    """A table with a line for the targets that have the same outcomes, and the kinds that are refused by name."""
    outcomes: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        outcomes.setdefault(row["target"], {}).setdefault(row["outcome"], []).append(row["kind"])
    lines: dict[str, list[str]] = {}
    for target in filter(outcomes.get, TARGETS):
        cell = ", ".join(
            f"{len(kinds)} {_SAID[outcome]}" + (f" ({', '.join(kinds)})" if outcome == "refused" else "")
            for outcome, kinds in sorted(outcomes[target].items())
        )
        lines.setdefault(cell, []).append(f"`{target}`")
    table = (f"| {', '.join(targets)} | {cell} |" for cell, targets in lines.items())
    return "\n".join(["| targets | kinds |", "|---|---|", *table])


@click.command()
@click.option("--kind", "kinds", type=click.Choice(list(KINDS)), multiple=True, default=tuple(KINDS))
@click.option("--target", "targets", multiple=True, default=TARGETS)
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(kinds: Iterable[str], targets: Sequence[str], output: Path) -> None:
    """Compile every kind for every target of the repeatable options, and write a row for each."""
    names = [target.name for target in resolve_targets(targets)]
    done = {(row["kind"], row["target"]) for row in read_rows(output) if row["compiler"] == compiler()}
    for kind in kinds:
        pending = [name for name in names if (kind, name) not in done]
        rows = rows_of(kind, pending) if pending else []
        with output.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
        for row in rows:
            click.echo(f"{kind} {row['target']}: {row['outcome']} {row['reason']}")


if __name__ == "__main__":
    main()
