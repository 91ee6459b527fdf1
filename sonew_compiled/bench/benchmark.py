"""Carries out a plan: every run has a process of its own, and every row is written when its run ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sonew_compiled.bench import rows as _rows
from sonew_compiled.bench._apart import RunError, call_apart
from sonew_compiled.bench._circumstances import Watch, machine_id
from sonew_compiled.bench._machine import machine, versions
from sonew_compiled.bench._row_format import SCHEMA
from sonew_compiled.bench._shares import described, shares, sharpened
from sonew_compiled.bench._torch import has_torch
from sonew_compiled.bench.plan import Plan, Run
from sonew_compiled.bench.rows import Row
from sonew_compiled.contract import MANIFEST_FILE
from sonew_compiled.runtime.json_files import parse, read_content
from sonew_compiled.runtime.schema import Unfit, mapped, nullable, number, record, text
from sonew_compiled.runtime.tensorfile import write_atomically
from sonew_compiled.step_settings import PLAIN

BUNDLES = "bundles"

Say = Callable[[str], None]


def run_plan(
    plan: Plan, folder: Path, *, resume: bool = False, host: str | None = None, say: Say = lambda line: None
) -> list[Row]:
    """Runs the rest of a plan, and returns the rows of the whole folder, those of other machines too.

    Args:
      plan: the runs.
      folder: receives `rows.jsonl` and the bundles.
      resume: whether the folder may hold rows. A run whose row ended well on this machine, with the same settings,
        versions and bundle, is not repeated.
      host: the name of this machine in the rows; None to leave it out.
      say: is called with each line of progress.

    Raises:
      UsageError: the folder holds rows and `resume` is not given.
      SonewError: the rows cannot be read or written. A failure within a run is a row with `error` instead.
    """
    had = _rows.latest(_rows.check_new(folder, resume=resume))
    bench = _Bench(plan, folder, had, host, say)
    for place, (run, label) in enumerate(zip(plan.runs, plan.labels(), strict=True), 1):
        bench.run(run, f"{place}/{len(plan.runs)} {label}")
    rows = _rows.latest(_rows.read_rows(folder))
    # Earlier calls may have had other target losses.
    return [
        row | {"to_loss": _rows.to_losses(row["curve"], plan.target_losses)} if "curve" in row else row for row in rows
    ]


def left_of(
    plan: Plan, folder: Path, *, resume: bool = False, say: Say = lambda line: None
) -> list[tuple[Run, list[str]]]:
    """The runs of a plan that are still to be done, each with the kinds of its rows.

    Args:
      plan, folder, resume, say: as for `run_plan`.

    Raises:
      UsageError: the folder holds rows and `resume` is not given.
      SonewError: the rows cannot be read.
    """
    bench = _Bench(plan, folder, _rows.latest(_rows.check_new(folder, resume=resume)), None, say)
    found = [(run, bench.missing(run)) for run in plan.runs]
    return [(run, kinds) for run, kinds in found if kinds]


class _Bench:
    def __init__(self, plan: Plan, folder: Path, had: list[Row], host: str | None, say: Say) -> None:
        self._plan = plan
        self._folder = folder
        self._had = [row for row in had if row["machine_id"] == machine_id()]
        self._host = host
        self._say = say
        self._versions = versions()
        self._limits: dict[str, dict[str, Any]] = {}
        self._updates: dict[str, dict[str, Any]] = {}
        self._versus = [each for each in plan.versus if each != "torch" or self._has_torch()]

    def run(self, run: Run, label: str) -> None:
        """The rows of one run."""
        missing = self.missing(run)
        if not missing:
            self._say(f"{label}: done before")
            return
        for kind in missing:
            self._say(f"{label}: {kind}")
            row, watch = self._base(kind, run), Watch(self._host)
            try:
                row |= self._measure(kind, run)
            except RunError as error:
                row["error"] = str(error)
                self._say(f"{label}: {kind} failed: {error}")
            row |= watch.described(row.get("step_stretches_seconds", ()))
            for warning in row["warnings"]:
                self._say(f"{label}: {warning}")
            _rows.append_row(self._folder, row)

    def missing(self, run: Run) -> list[str]:
        """The kinds of the rows of a run that are not done."""
        kinds = [run.kind, *(self._compared(run) if run.device else [])]
        return [kind for kind in kinds if not self._is_done(kind, run)]

    def _compared(self, run: Run) -> list[str]:
        kinds = ["jax"] if "jax" in self._versus else []
        # There is a PyTorch step only for Adam on the autoencoder; a row of another run would be an error.
        of = (run.model, run.optimizer.name, run.precision, run.step)
        if "torch" in self._versus and of == ("autoencoder", "adam", "f32", PLAIN):
            kinds += ["torch-eager", "torch-compile"]
        return kinds

    def _has_torch(self) -> bool:
        if has_torch():
            return True
        self._say("--vs torch: PyTorch is not installed, so there will be no row of it: pip install torch")
        return False

    def _bundle(self, run: Run) -> Path:
        return self._folder / BUNDLES / run.bundle_name

    def _base(self, kind: str, run: Run) -> Row:
        return {
            "schema": SCHEMA,
            "kind": kind,
            "settings": run.settings(),
            "versions": self._versions,
            "machine": machine(run.device) if run.device else None,
            "bundle": _digest(self._bundle(run)),
            "caveat": self._plan.caveat,
            "error": None,
        }

    def _is_done(self, kind: str, run: Run) -> bool:
        settings, bundle = json.loads(json.dumps(run.settings())), _digest(self._bundle(run))
        return any(
            row["kind"] == kind
            and row["settings"] == settings
            and row.get("error") is None
            and row.get("versions") == self._versions
            and bundle in (None, row.get("bundle"))
            for row in self._had
        )

    def _measure(self, kind: str, run: Run) -> Row:
        bundle, compiled = self._compile(run)
        common = {"bundle": _digest(bundle)}
        settings, path = run.settings(), str(bundle)
        if kind == "jax":
            return common | call_apart(
                "sonew_compiled.bench._versus:time_jax", run=settings, bundle=path, pairs=self._plan.pairs
            )
        if kind.startswith("torch"):
            return common | call_apart(
                "sonew_compiled.bench._torch:time_torch",
                run=settings,
                bundle=path,
                pairs=self._plan.pairs,
                compiled=kind == "torch-compile",
            )
        common |= compiled
        if kind == "static":
            return common
        # This comes before the training, so that a failure here does not lose it.
        limits = self._roofline(run)
        if kind == "train":
            goals = list(self._plan.target_losses)
            measured = call_apart(
                "sonew_compiled.bench._row_tasks:train_bundle",
                run=settings,
                data_dir=run.data_dir,
                bundle=path,
                target_losses=goals,
            )
        else:
            measured = call_apart(
                "sonew_compiled.bench._row_tasks:time_bundle", run=settings, data_dir=run.data_dir, bundle=path
            )
        measured |= compiled
        if self._plan.update:
            try:
                measured |= self._update(run, bundle)
            except RunError as error:
                self._say(f"the update alone was not timed: {error}")
        if max(shares(measured, limits).values()) > 1:
            # The limits were perhaps measured while another program ran.
            limits = self._limits[run.device] = sharpened(limits, self._measure_limits(run))
        return common | measured | described(measured, limits, run.precision)

    def _compile(self, run: Run) -> tuple[Path, dict[str, Any]]:
        """The bundle, compiled unless it exists, and the note that was written when it was compiled."""
        bundle = self._bundle(run)
        note = bundle.with_name(bundle.name + ".json")
        key = {"versions": self._versions, "bundle": _digest(bundle)}
        noted = _read_note(note) if bundle.exists() else None
        if noted is not None and {name: noted[name] for name in key} == key:
            return bundle, noted["compiled"]
        bundle.parent.mkdir(parents=True, exist_ok=True)
        compiled = call_apart("sonew_compiled.bench._row_tasks:compile_bundle", run=run.settings(), bundle=str(bundle))
        key["bundle"] = _digest(bundle)
        write_atomically(note, [json.dumps(key | {"compiled": compiled}).encode()])
        return bundle, compiled

    def _roofline(self, run: Run) -> dict[str, Any]:
        if run.device not in self._limits:
            self._limits[run.device] = self._measure_limits(run)
        return self._limits[run.device]

    def _measure_limits(self, run: Run) -> dict[str, Any]:
        return call_apart("sonew_compiled.bench._roofline:measure_limits", target=run.target, device=run.device)

    def _update(self, run: Run, bundle: Path) -> dict[str, Any]:
        key = f"{run.bundle_name} {run.device}"
        if key not in self._updates:
            settings = run.settings()
            self._updates[key] = call_apart(
                "sonew_compiled.bench._row_tasks:time_update", run=settings, bundle=str(bundle), pairs=self._plan.pairs
            )
        return self._updates[key]


_NOTE = record(
    {
        "versions": mapped(text(), 100),
        "bundle": text(),
        "compiled": record({"step_flops": number(0)}, others=nullable(number())),
    }
)


def _read_note(path: Path) -> dict[str, Any] | None:
    """The note that was written when a bundle was compiled; None if it is missing or damaged."""
    try:
        noted: dict[str, Any] = _NOTE(parse(read_content(path)), "the note")
    except (OSError, Unfit):
        return None
    return noted


def _digest(bundle: Path) -> str | None:
    """The SHA-256 of the bundle's manifest, which holds those of its files; None if there is no bundle."""
    manifest = bundle / MANIFEST_FILE
    return hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.exists() else None
