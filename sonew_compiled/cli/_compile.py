"""`sonew compile`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sonew_compiled.cli import _options as options
from sonew_compiled.cli._dry_run import chosen_in_compilation, compiled_files, dry_run_option, show_plan
from sonew_compiled.cli._progress import Stages
from sonew_compiled.cli._say import note, output_options, print_json
from sonew_compiled.cli._sections import SectionedCommand
from sonew_compiled.install import require
from sonew_compiled.train_settings import DEFAULT_SCHEDULE

if TYPE_CHECKING:
    from sonew_compiled.runtime.manifest import Manifest


@click.command("compile", cls=SectionedCommand)
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    default=Path("sonew.bundle"),
    show_default=True,
    help="The bundle, a directory.",
)
@options.compile_options
@options.how_to_train(
    "learning_rate",
    "schedule",
    shown={"learning_rate": "the optimizer's preset", "schedule": f"{DEFAULT_SCHEDULE}, or that of --preset long"},
)
@click.option("--dump-ir", type=options.PATH, help="Write the module after each pass into this directory.")
@click.option("--print-ir-after", multiple=True, metavar="PASS", help="Print the module after this pass, or all.")
@options.check_options
@dry_run_option
@output_options
def compile_command(
    output: Path,
    check: bool,
    dump_check: Path | None,
    dump_ir: Path | None,
    print_ir_after: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **what: Any,
) -> None:
    """Compile a model and an optimizer into a bundle.

    \b
    Examples:
      sonew compile -o ae.bundle
      sonew compile -o ae.bundle --target cpu --target vulkan
      sonew compile -o band.bundle --optimizer band-sonew --band 4 --batch-size 500
      sonew compile -o half.bundle --precision bf16
      sonew compile -o parts.bundle --batch-size 1000 --micro-batch 250
      sonew compile -o head.bundle --clip-norm 1 --freeze 'encoder/*' --ema 0.999
      sonew compile -o tpu.bundle --target tpu:v5e
      sonew compile -o mine.bundle --model package.module:attribute
    """
    from sonew_compiled.runtime.shown import argument

    if dry_run:
        from sonew_compiled.runtime.older_bundle import writable_bundle

        _require_compilers(what["targets"] or ("cpu",))
        found = chosen_in_compilation(what)
        options.load_model(found["model"].value)
        names = compiled_files(found["targets"].value, has_params=what["params"] is not None)
        place = writable_bundle(output)
        show_plan(found, writes=[place / name for name in names], as_json=as_json)
        return
    started = time.perf_counter()
    manifest = compile_bundle(
        output, what, check=check, dump_check=dump_check, dump_ir=dump_ir, print_ir_after=print_ir_after
    )
    seconds = time.perf_counter() - started
    if as_json:
        print_json(
            {
                "bundle": str(output),
                "seconds": round(seconds, 3),
                "targets": [target.name for target in manifest.targets],
                "files": {name: file.size for name, file in manifest.files.items()},
            }
        )
    size = sum(file.size for file in manifest.files.values())
    how = (
        f"train with: sonew run {argument(output)}"
        if any(target.driver != "tpu" for target in manifest.targets)
        else "load it on a TPU with sonew_compiled.load_tpu_program"
    )
    note(f"wrote {output} ({size / 1e6:.1f} MB) in {seconds:.1f} s; {how}")


def compile_bundle(
    output: Path,
    what: dict[str, Any],
    *,
    check: bool = True,
    dump_check: Path | None = None,
    dump_ir: Path | None = None,
    print_ir_after: tuple[str, ...] = (),
) -> Manifest:
    """Compiles a bundle with the compile options in `what`."""
    _require_compilers(what["targets"] or ("cpu",))
    optimizer, step = options.optimizer_of(what), options.step_of(what)
    name = what["model"] or "autoencoder"
    # Tracing needs no accelerator, whatever the user has set for other programs.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.pop("JAX_PLATFORM_NAME", None)
    from sonew_compiled.compile import compile_training
    from sonew_compiled.jax_settings import pinned_settings

    with pinned_settings():
        model = options.load_model(name)
    with options.user_code(name), Stages() as stages:
        return compile_training(
            optimizer=optimizer,
            batch=model.batch(what["batch_size"] or options.DEFAULT_BATCH_SIZE),
            output=output,
            targets=what["targets"] or ("cpu",),
            model=name,
            learning_rate=what["learning_rate"],
            schedule=options.schedule_of(what),
            precision=what["precision"] or "f32",
            step=step,
            init_on=what["init_on"] or "device",
            params=what["params"],
            micro_batch=what["micro_batch"],
            exchange=what["exchange"] or "f32",
            check=check,
            dump_check=dump_check,
            dump_ir=dump_ir,
            print_ir_after=print_ir_after,
            progress=stages,
            **model.functions(),
        )


def _require_compilers(names: Sequence[str]) -> None:
    """Checks that the compilers of all these targets are installed, and names in one command what is missing."""
    from sonew_compiled.lowering.targets import extras_of, resolve_targets

    extras = [extra for target in resolve_targets(names) for extra in extras_of(target)]
    require(*dict.fromkeys(extras), purpose="compiling")
