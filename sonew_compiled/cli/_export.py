"""`sonew export`: trained weights as a file for other programs, or as a bundle for inference."""

from __future__ import annotations

from pathlib import Path

import click

from sonew_compiled.cli import _options as options
from sonew_compiled.cli._progress import Stages
from sonew_compiled.cli._say import note, output_options, print_json
from sonew_compiled.errors import UsageError, counted
from sonew_compiled.install import require

# The ends of the names of bundles; others are taken for files of a kind that is not written.
_BUNDLES = ("", ".bundle")


@click.command("export", short_help="Write trained weights, or a bundle for inference.")
@options.bundle_argument
@options.checkpoint_option
@options.raw_option
@options.trusted_keys_option
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    default=Path("weights.safetensors"),
    show_default=True,
    help="A .safetensors or .npz file of weights, or a directory for a bundle.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="Target that the bundle is compiled for, from `sonew targets`; repeatable.  [default: those of BUNDLE]",
)
@options.check_options
@output_options
def export_command(
    bundle: Path,
    checkpoint: Path | None,
    raw: bool,
    trusted_keys: Path | None,
    output: Path,
    targets: tuple[str, ...],
    as_json: bool,
    check: bool,
    dump_check: Path | None,
) -> None:
    """Write the weights of a trained model under the model's own names, such as layer0/kernel.

    A .npz file has no bfloat16; such weights are written as float32, exactly. A name without an ending, or in .bundle,
    makes a bundle for inference: it holds the weights, evaluates and predicts, and has neither a training step nor an
    optimizer. Making it needs the compiler, but not the model's code.

    \b
    Examples:
      sonew export sonew-run/bundle --checkpoint sonew-run -o weights.safetensors
      sonew export ae.bundle --checkpoint sonew-run/step-00001200.safetensors -o weights.npz
      sonew export ae.bundle --checkpoint sonew-run -o infer.bundle --target cpu:aarch64
    """
    from sonew_compiled.runtime import load_trained, save_parameters
    from sonew_compiled.runtime.shown import argument
    from sonew_compiled.runtime.weights import SUFFIXES, as_parameters, own_names

    is_file = output.suffix in SUFFIXES
    if not is_file and output.suffix not in _BUNDLES:
        raise UsageError(
            f"cannot export to {output}; give a name that ends in {' or '.join(SUFFIXES)} for weights, or in .bundle"
        )
    if is_file and targets:
        raise UsageError(f"--target applies to a bundle, and {output} is a file of weights: leave one of them out")
    opened = options.open_bundle(bundle, trusted_keys)
    trained = load_trained(opened, checkpoint, raw=raw)
    if is_file:
        names = own_names(as_parameters(opened.manifest.evaluated))
        save_parameters(output, {own: trained.arrays[name] for name, own in names.items()})
        if as_json:
            shapes = {own: list(trained.arrays[name].shape) for name, own in names.items()}
            print_json({"output": output, "weights": trained.path, "tensors": shapes})
        note(f"wrote {output}: {counted(len(names), 'tensor')} of {trained.path}")
        return
    require("compile", purpose="a bundle for inference")
    from sonew_compiled.inference import export_inference

    with Stages() as stages:
        manifest = export_inference(
            opened, trained.arrays, output, targets=targets, check=check, dump_check=dump_check, progress=stages
        )
    size = sum(file.size for file in manifest.files.values())
    if as_json:
        made_for = [target.name for target in manifest.targets]
        print_json({"output": output, "weights": trained.path, "targets": made_for, "bytes": size})
    how = f"predict with: sonew predict {argument(output)} --data DATA"
    note(f"wrote {output} ({size / 1e6:.1f} MB) with the weights of {trained.path}; {how}")
