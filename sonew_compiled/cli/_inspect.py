"""`sonew inspect`: the contents of a bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sonew_compiled.cli import _options as options
from sonew_compiled.cli._say import console, note, output_options, print_json
from sonew_compiled.contract import TRAIN_STEP, Driver
from sonew_compiled.errors import counted, on_one_line
from sonew_compiled.install import install_command

if TYPE_CHECKING:
    from rich.table import Table

    from sonew_compiled.runtime import Bundle
    from sonew_compiled.runtime.manifest import FunctionSpec, Manifest, TargetSpec, TensorSpec

# More tensors than this are summed up on one line.
_MOST_TENSORS = 4


@click.command("inspect", short_help="Show the contents of a bundle, and check its files.")
@options.bundle_argument
@click.option("--kernels", is_flag=True, help="Show the figures of every kernel (CUDA, ROCm) and function (TPU).")
@options.trusted_keys_option
@output_options
def inspect_command(bundle: Path, kernels: bool, trusted_keys: Path | None, as_json: bool) -> None:
    """Show the contents of a bundle, and check the hash of every file.

    \b
    Examples:
      sonew inspect sonew.bundle
      sonew inspect sonew.bundle --kernels
      sonew inspect sonew.bundle --json
    """
    opened = options.open_bundle(bundle, trusted_keys)
    opened.verify()
    if as_json:
        print_json(_described(opened))
    else:
        _print_table(opened, kernels=kernels)


def _described(bundle: Bundle) -> dict[str, Any]:
    import json

    from sonew_compiled.runtime.versions import runtime_weakness

    manifest = bundle.manifest
    described: dict[str, Any] = json.loads(manifest.to_json())
    return described | {
        "bundle": str(bundle.path),
        "runtime_weakness": runtime_weakness(),
        "units": {target.name: _units(bundle, target) for target in manifest.targets},
        "parameters": manifest.parameter_count,
        "state_bytes": manifest.state_bytes,
        "state_bytes_per_parameter": round(manifest.state_bytes / max(manifest.parameter_count, 1), 2),
    }


def _print_table(bundle: Bundle, *, kernels: bool) -> None:
    from rich.table import Table

    from sonew_compiled.runtime.versions import runtime_weakness

    manifest = bundle.manifest
    out = console()
    settings = "  ".join(f"{key} {value}" for key, value in manifest.optimizer.items() if key != "name")
    parameters = manifest.parameter_count
    parts = f", in micro-batches of {manifest.micro_batch_size}" if manifest.micro_batch_size else ""
    out.print(f"bundle     {on_one_line(str(bundle.path))}, format {manifest.format_version}")
    out.print(f"model      {manifest.model}, {parameters:,} parameters, batches of {manifest.batch_size}{parts}")
    out.print(f"optimizer  {manifest.optimizer.get('name', 'unnamed')}  {settings}")
    if manifest.step:
        out.print(f"step       {'  '.join(manifest.step_in_words)}")
    if manifest.init == "host":
        out.print("init       host: the parameters of seed 0, whatever the seed of a run")
    out.print(f"precision  {manifest.precision}")
    out.print(f"defaults   {'  '.join(f'{key} {value}' for key, value in manifest.defaults.items())}")
    out.print(
        f"state      {manifest.state_bytes / 1e6:.1f} MB, "
        f"{manifest.state_bytes / max(parameters, 1):.1f} bytes a parameter"
    )
    out.print(f"made by    {'  '.join(f'{package} {version}' for package, version in manifest.versions.items())}")
    if weakness := runtime_weakness():
        out.print(f"warning    {weakness}")
    functions = Table("function", "inputs", "outputs", box=None, header_style="bold", pad_edge=False)
    for name, function in manifest.functions.items():
        functions.add_row(name, _signature(function, inputs=True), _signature(function, inputs=False))
    files = Table("file", "bytes", "target", "runs on", "sha256", box=None, header_style="bold", pad_edge=False)
    targets = {target.file: target for target in manifest.targets}
    for name, file in manifest.files.items():
        target = targets.get(name)
        place = f"{target.driver} {target.cpu or target.machine}".strip() if target else ""
        files.add_row(name, f"{file.size:,}", target.name if target else "", place, file.sha256[:12])
    out.print(functions, "", files)
    lines = [f"{target.name}: {figures}" for target in manifest.targets for figures in _figures(bundle, target)]
    if lines:
        out.print("", *lines, sep="\n")
    if kernels:
        for table in (_kernel_table(manifest), _function_table(manifest)):
            if table.row_count:
                out.print("", table)
        if why := _why_no_kernels(manifest):
            note(why)


def _why_no_kernels(manifest: Manifest) -> str:
    """Why there are no figures of kernels; empty if there are."""
    if any(target.kernels or target.programs for target in manifest.targets):
        return ""
    cuda = [target.name for target in manifest.targets if target.driver == Driver.CUDA]
    if not cuda:
        return "no figures of kernels: the compilers for CUDA, ROCm and TPU report them, and this bundle is for none"
    return (
        f"no figures of kernels for {', '.join(cuda)}: CUDA's assembler was not there when the bundle was compiled; "
        f"{install_command('cuda')}, and compile it again"
    )


def _figures(bundle: Bundle, target: TargetSpec) -> Iterator[str]:
    """The lines on a target's code that need no run."""
    if target.kernels:
        yield _kernel_figures(target)
    if target.programs:
        yield _function_figures(target)
    units = _units(bundle, target)
    if units is None:
        yield "its code cannot be read"
    elif units:
        yield "16-bit units: " + ", ".join(f"{count:,} {name}" for name, count in units.items())


def _units(bundle: Bundle, target: TargetSpec) -> Mapping[str, int] | None:
    """The count of each instruction for 16-bit numbers in an executable; None if the file is no executable."""
    from sonew_compiled.lowering.units import count_units

    if not target.file.endswith(".vmfb"):
        return {}
    try:
        return count_units(bundle.read(target.file))
    except ValueError:
        return None


def _kernel_figures(target: TargetSpec) -> str:
    """The compiler's figures of a GPU's kernels, on one line."""
    most = max(target.kernels, key=lambda kernel: kernel.registers)
    spilling = [kernel for kernel in target.kernels if kernel.spilled_bytes]
    kernels, registers = counted(len(target.kernels), "kernel"), counted(most.registers, "register")
    parts = [f"{kernels}, at most {registers} a thread ({most.name})"]
    if spilling:
        worst = max(spilling, key=lambda kernel: kernel.spilled_bytes)
        spilled = counted(worst.spilled_bytes, "byte")
        parts.append(f"{len(spilling)} of them with spills, at most {spilled} a thread ({worst.name})")
    else:
        parts.append("none spills")
    return ", ".join(parts)


def _function_figures(target: TargetSpec) -> str:
    """XLA's figures of a step on a TPU, on one line."""
    step = next((each for each in target.programs if each.function == TRAIN_STEP), target.programs[0])
    mb = {name: f"{value / 1e6:.1f} MB" for name, value in dataclasses.asdict(step).items() if name != "function"}
    return (
        f"{step.function} has {mb['code_bytes']} of code, takes {mb['argument_bytes']}, of which {mb['aliased_bytes']} "
        f"are updated in place, and {mb['temporary_bytes']} besides; {step.flops / 1e9:.2f} GFLOP, "
        f"{mb['bytes_accessed']} read and written"
    )


def _kernel_table(manifest: Manifest) -> Table:
    from rich.table import Table

    table = Table("target", "kernel", "registers", "bytes spilled", box=None, header_style="bold", pad_edge=False)
    for target in manifest.targets:
        for kernel in target.kernels:
            table.add_row(target.name, kernel.name, str(kernel.registers), str(kernel.spilled_bytes))
    return table


def _function_table(manifest: Manifest) -> Table:
    """The figures of every function for a TPU; all but the operations are bytes."""
    from rich.table import Table

    heads = ("code", "arguments", "results", "in place", "temporary", "FLOP", "read and written")
    table = Table("target", "function", *heads, box=None, header_style="bold", pad_edge=False)
    for target in manifest.targets:
        for function in target.programs:
            figures = dataclasses.asdict(function)
            table.add_row(target.name, figures.pop("function"), *(f"{figure:,}" for figure in figures.values()))
    return table


def _signature(function: FunctionSpec, *, inputs: bool) -> str:
    """The tensors of a call; those of the state are summed up if they are many."""
    groups: dict[str, list[TensorSpec]] = {}
    for spec in function.inputs if inputs else function.outputs:
        groups.setdefault(spec.name.partition("/")[0], []).append(spec)
    words = []
    for group, specs in groups.items():
        if len(specs) > _MOST_TENSORS:
            words.append(f"{group}/ ({len(specs)} tensors, {sum(spec.nbytes for spec in specs) / 1e6:.1f} MB)")
        else:
            words.extend(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in specs)
    return ", ".join(words)
