"""Running passes: the registry, the pipeline every target shares, verification and dumps."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir.mlir import first_diagnostic, ir, to_text
from sonew_compiled.passes.precision import (
    loss_scaling,
    lower_contractions,
    lower_storage,
    retype,
    stochastic_rounding,
    use_stored,
)
from sonew_compiled.passes.precision.policies import Policy
from sonew_compiled.passes.record import Pass
from sonew_compiled.passes.shared import (
    legalize_chlo,
    merge_exports,
    split_reductions,
    strip_locations,
    transpose_scatters,
    wire_donation,
)
from sonew_compiled.passes.target import (
    emulate_arithmetic,
    emulate_bf16,
    emulate_contractions,
    emulate_rounding,
    exact_contractions,
    fence_contractions,
    fence_iotas,
    fence_scatters,
    fork_stored,
    gather_shifts,
    select_export,
    stream_rows,
    widen_booleans,
)

_BEFORE_PRECISION: Sequence[Pass] = (merge_exports.PASS, legalize_chlo.PASS, transpose_scatters.PASS)
_AFTER_PRECISION: Sequence[Pass] = (split_reductions.PASS, wire_donation.PASS, strip_locations.PASS)

PIPELINE: Sequence[Pass] = (*_BEFORE_PRECISION, *_AFTER_PRECISION)
"""The target-independent pipeline in float32, from the container that the tracer makes to what is bundled."""

_OF_SOME: Sequence[Pass] = (
    lower_storage.PASS,
    lower_contractions.PASS,
    use_stored.PASS,
    retype.PASS,
    stochastic_rounding.PASS,
    loss_scaling.PASS,
    emulate_contractions.PASS,
    emulate_arithmetic.PASS,
    emulate_rounding.PASS,
    emulate_bf16.PASS,
    exact_contractions.PASS,
    fence_contractions.PASS,
    fence_iotas.PASS,
    fence_scatters.PASS,
    fork_stored.PASS,
    gather_shifts.PASS,
    select_export.PASS,
    stream_rows.PASS,
    widen_booleans.PASS,
)

REGISTRY: Mapping[str, Pass] = MappingProxyType({each.name: each for each in (*PIPELINE, *_OF_SOME)})
"""Every pass by name: those of `PIPELINE`, those of precision policies, those that only some targets need."""


def pipeline(policy: Policy) -> Sequence[Pass]:
    """The target-independent pipeline of a precision policy: `PIPELINE` with the policy's passes in their place."""
    return (*_BEFORE_PRECISION, *map(parse_pass, policy.passes), *_AFTER_PRECISION)


def parse_pass(text: str) -> Pass:
    """Return the pass that `name` or `name:option=value,option=value` means.

    Raises:
        UsageError: no such pass or option, or a value that the option does not take.
    """
    name, _, rest = text.partition(":")
    if name not in REGISTRY:
        raise UsageError(f"no pass {name!r}; the passes are: {', '.join(REGISTRY)}")
    chosen = REGISTRY[name]
    options: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        option, _, value = part.partition("=")
        read = chosen.options.get(option, str)  # an unknown option is refused by bind, with the ones there are
        try:
            options[option] = read(value)
        except ValueError as error:
            raise UsageError(f"pass {name}: {value!r} is no value for {option}: {error}") from error
    return chosen.bind(**options)


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
        try:
            each(module)
            module.operation.verify()
        except ir.MLIRError as error:
            raise AssertionError(f"pass {each.name} made an invalid module: {first_diagnostic(error)}") from error
        _dump(module, dump_dir, f"{number:02}-{each.name}")
        if "all" in print_ir_after or each.name in print_ir_after:
            (stream or sys.stderr).write(f"// ----- after {each.name} -----\n{to_text(module)}")


def _dump(module: ir.Module, directory: Path | None, name: str) -> None:
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{name}.mlir").write_text(to_text(module), encoding="utf-8")
