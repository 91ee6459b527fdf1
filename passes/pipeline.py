"""Running passes: the order that every target shares, verification and dumps."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TextIO

from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir.mlir import first_diagnostic, ir, to_text
from sonew_compiled.passes.precision.policies import POLICIES, Policy
from sonew_compiled.passes.record import Pass
from sonew_compiled.passes.registry import parse_pass

_LOG = logging.getLogger(__name__)

PRECISION = "(precision)"
"""In `ORDER`: where the passes of the precision policy go."""

ORDER = (
    "strip-shardings",
    "merge-exports",
    "legalize-chlo",
    "split-complex",
    "clamp-gathers",
    "bound-scatters",
    "flatten-scatters",
    "transpose-scatters",
    "trim-windows",
    "fill-empty",
    PRECISION,  # before split-reductions, which cuts the stages with the types that they will have
    "split-reductions",
    "wire-donation",
    "strip-locations",
)
"""The target-independent pipeline, from the container that the tracer makes to what is bundled."""


def pipeline(policy: Policy, *, micro_batches: int = 0, exchange: str = "f32") -> Sequence[Pass]:
    """The target-independent pipeline of a precision policy.

    With micro-batches in a batch, it cuts the step, and its update, behind the passes of the policy,
    and rounds the signals to the type `exchange`.
    """
    names = [each for name in ORDER for each in (policy.passes if name == PRECISION else (name,))]
    if not micro_batches:
        return tuple(map(parse_pass, names))
    behind = ORDER.index(PRECISION) + len(policy.passes)
    names[behind:behind] = [f"split-step:count={micro_batches},exchange={exchange}", "split-update"]
    chosen = map(parse_pass, names)
    return tuple(each.bind(seam=True) if each.name == "use-stored" else each for each in chosen)


PIPELINE: Sequence[Pass] = pipeline(POLICIES["f32"])
"""The target-independent pipeline in float32."""


def run_pipeline(
    module: ir.Module,
    passes: Sequence[Pass] = PIPELINE,
    *,
    dump_dir: Path | None = None,
    print_ir_after: Collection[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Run the passes on the module in place, in order, and verify the module after each.

    Args:
        module: the module; it is left half-way if a pass raises.
        passes: the passes to run.
        dump_dir: a directory (made if need be) that gets `00-input.mlir`, `01-<pass>.mlir`, ...
        print_ir_after: names of passes after which the module is printed, or "all".
        stream: where it is printed; by default stderr.

    Raises:
        UsageError: `print_ir_after` has a name that is no pass of these, or a pass refuses the module.
        AssertionError: a pass made an invalid module; this is a defect of that pass.
    """
    names = [each.name for each in passes]
    for name in print_ir_after:
        if name != "all" and name not in names:
            raise UsageError(f"no pass {name!r} to print after; the passes are: {', '.join([*names, 'all'])}")
    _dump(module, dump_dir, "00-input")
    for number, each in enumerate(passes, 1):
        started = time.perf_counter()
        try:
            each(module)
            module.operation.verify()
        except ir.MLIRError as error:
            raise AssertionError(f"pass {each.name} made an invalid module: {first_diagnostic(error)}") from error
        _LOG.debug("pass %s: %.2f s", each.name, time.perf_counter() - started)
        _dump(module, dump_dir, f"{number:02}-{each.name}")
        if "all" in print_ir_after or each.name in print_ir_after:
            (stream or sys.stderr).write(f"// ----- after {each.name} -----\n{to_text(module)}")


def _dump(module: ir.Module, directory: Path | None, name: str) -> None:
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{name}.mlir").write_text(to_text(module), encoding="utf-8")
