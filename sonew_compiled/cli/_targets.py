"""`sonew targets`: what this machine can compile for, and what runs here."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import Any

import click

from sonew_compiled.cli._say import console, output_options, print_json

_HEADS = ("targets", "compile", "run", "devices, or why not")
# The widest table; the names take two fifths of what "compile", "run" and the gaps leave.
_WIDEST = 98


@dataclass(frozen=True)
class _Found:
    """A target on this machine.

    Attributes:
      name: of the target.
      devices: those that run its code here.
      why_not_compiled: the step that is missing before it can be compiled for; empty if it can.
      why_not_run: the reason why its code cannot run here; empty if it can.
    """

    name: str
    devices: tuple[str, ...]
    why_not_compiled: str
    why_not_run: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "compile": not self.why_not_compiled,
            "run": not self.why_not_run,
            "devices": self.devices,
            "reason": "; ".join(filter(None, [self.why_not_compiled, self.why_not_run])),
        }


@click.command("targets", short_help="Show what can be compiled for and run here.")
@output_options
def targets_command(as_json: bool) -> None:
    """Show the targets that this machine can compile, and the --device that runs each here.

    \b
    Examples:
      sonew targets
      sonew targets --json
    """
    found = _find()
    if as_json:
        print_json([each.to_json() for each in found])
        return
    from rich.table import Column, Table

    from sonew_compiled.lowering.targets import processor_names

    out = console()
    width = min(out.width, _WIDEST)
    left = width - len("".join(_HEADS[1:3])) - 3 * 2
    table = Table(*(Column(head, overflow="fold") for head in _HEADS), box=None, header_style="bold", pad_edge=False)
    for (compiles, runs, why), names in _alike(found).items():
        can = ("yes" if able else "no" for able in (compiles, runs))
        table.add_row(_folded(", ".join(names), left * 2 // 5), *can, _folded(why, left - left * 2 // 5))
    processors = ", ".join(name.partition(":")[2] for name in processor_names())
    out.print(table, "")
    for line in (
        *_to_compile(found),
        *_devices_named(found),
        f"and cpu:NAME for a model of processor: {processors}; features are added by a +, as in cpu:aarch64+bf16",
    ):
        # A command stays on its line, so that it can be copied.
        out.print(line if line.startswith("to compile") else _folded(line, width))


def _alike(found: list[_Found]) -> dict[tuple[bool, bool, str], list[str]]:
    """The names of the targets of which the same is to be said, in order."""
    groups: dict[tuple[bool, bool, str], list[str]] = {}
    for each in found:
        why = _said_once(each.why_not_run) or ", ".join(each.devices)
        groups.setdefault((not each.why_not_compiled, not each.why_not_run, why), []).append(each.name)
    return groups


def _said_once(why: str) -> str:
    """A reason that targets share: the names tell what a target is for, and the line below the table the device."""
    if ", this one is " in why:
        return "for other GPUs than the one here"
    return re.sub(r"^for \w+, this machine is (\w+)$", r"this machine is \1", why)


def _to_compile(found: list[_Found]) -> list[str]:
    """What is to be done before more can be compiled: once for all targets, or for those named."""
    steps: dict[str, list[str]] = {}
    for each in found:
        if each.why_not_compiled:
            steps.setdefault(each.why_not_compiled, []).append(each.name)
    most = max(steps, key=lambda step: len(steps[step]), default="")
    is_all = sum(map(len, steps.values())) == len(found)
    return [
        step if is_all and step == most else step.replace("to compile", f"to compile for {', '.join(names)}", 1)
        for step, names in steps.items()
    ]


def _devices_named(found: list[_Found]) -> list[str]:
    """The GPUs for which a target is not."""
    names = [each.why_not_run.partition(", this one is ")[2] for each in found]
    return [f"the GPU here is {name}" for name in dict.fromkeys(filter(None, names))]


def _folded(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _find() -> list[_Found]:
    """All targets, as they are on this machine."""
    from sonew_compiled.lowering.targets import resolve_target, target_names, why_not_compiled
    from sonew_compiled.runtime import list_devices, missing_drivers, why_not_here

    here = list_devices()
    missing = missing_drivers()
    found = []
    for name in target_names():
        target = resolve_target(name)
        why_not = {
            each.name: why_not_here(target, {each.driver: each.description})
            for each in here
            if each.driver == target.driver
        }
        devices = tuple(device for device, why in why_not.items() if not why)
        if target.compiler == "libtpu":
            devices, why_not_run = (), "IREE has no driver for it; sonew_compiled.load_tpu_program loads it on a TPU"
        elif why_not:
            why_not_run = "" if devices else next(iter(why_not.values()))
        else:
            # "UNAVAILABLE; CUDA driver library 'libcuda.so' not available; please ensure ..."
            why = re.sub(r"^[A-Z_]+; |[;:] please .*", "", missing.get(target.driver, "the runtime has no such driver"))
            why_not_run = f"no {target.driver} device here ({why})"
        found.append(_Found(name, devices, why_not_compiled(target), why_not_run))
    return found
