"""The command line of the passes: runs them on a module and prints it, for tests and by hand.

python tools/sonew_opt.py --pass split-reductions:limit=16 module.mlir
python tools/sonew_opt.py --pipeline container.mlir
python tools/sonew_opt.py bundle/module.stablehlo
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

import click

from sonew_compiled import passes
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.passes.ir.mlir import ir


def _list_passes(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        width = max(map(len, passes.REGISTRY))
        for each in passes.REGISTRY.values():
            options = "".join(f" ({option.name})" for option in each.options)
            click.echo(f"{each.name:{width}}  {each.summary}{options}")
            for option in each.options:
                click.echo(f"{'':{width}}    {option.name}={option.default_text}: {option.help}")
        context.exit()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", type=click.File("rb"), default="-")
@click.option(
    "--pass", "wanted", multiple=True, metavar="NAME[:OPTION=VALUE,...]", help="A pass to run; give several in order."
)
@click.option("--pipeline", is_flag=True, help="Run the target-independent pipeline.")
@click.option("--precision", metavar="POLICY", help="The policy of the pipeline; float32 by default.")
@click.option("--dump-dir", type=click.Path(path_type=Path), help="Write the module here before and after each pass.")
@click.option("--print-ir-after", multiple=True, metavar="NAME", help="Print the module after this pass, or after all.")
@click.option("--artifact", type=click.Path(path_type=Path), help="Write a portable artifact here; print no text.")
@click.option("--locations", is_flag=True, help="Print source locations too.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_passes, help="List the passes.")
def main(
    source: BinaryIO,
    wanted: tuple[str, ...],
    pipeline: bool,
    precision: str | None,
    dump_dir: Path | None,
    print_ir_after: tuple[str, ...],
    artifact: Path | None,
    locations: bool,
) -> None:
    """Run passes on SOURCE, MLIR text or a portable artifact (- is standard input), and print the module."""
    try:
        if pipeline and wanted:
            raise UsageError("--pipeline is a list of passes already; give it or --pass, not both")
        if precision and not pipeline:
            raise UsageError("--precision chooses the passes of --pipeline; give that too, or the passes themselves")
        policy = passes.precision_policy(precision or "f32")
        chosen = passes.pipeline(policy) if pipeline else [passes.parse_pass(each) for each in wanted]
        module = _read(source.read())
        passes.run_pipeline(module, chosen, dump_dir=dump_dir, print_ir_after=print_ir_after)
        if artifact is None:
            click.echo(passes.to_text(module, locations=locations), nl=False)
        else:
            artifact.write_bytes(passes.to_portable_artifact(module))
    except SonewError as error:
        click.echo(f"sonew_opt: {error}", err=True)
        sys.exit(error.exit_code)


def _read(data: bytes) -> ir.Module:
    if passes.is_bytecode(data):
        return passes.from_portable_artifact(data)
    try:
        return passes.parse(data.decode())
    except UnicodeDecodeError as error:
        raise UsageError("the module is neither MLIR text nor a portable artifact") from error


if __name__ == "__main__":
    main()
