"""`sonew eval` and `sonew reconstruct`: a trained model's losses, and a picture of its reconstructions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sonew_compiled.cli import _dataset_options as datasets
from sonew_compiled.cli import _options as options
from sonew_compiled.cli._figures import figures, in_words
from sonew_compiled.cli._say import note, output_options, print_json, show_result
from sonew_compiled.cli._setting_type import Whole
from sonew_compiled.errors import counted


@click.command("eval", short_help="Compute the losses of a trained model.")
@options.bundle_argument
@options.checkpoint_option
@options.raw_option
@datasets.data_options
@options.device_option
@options.trusted_keys_option
@output_options
def eval_command(
    bundle: Path,
    checkpoint: Path | None,
    raw: bool,
    data: str | None,
    data_dir: Path | None,
    device: str | None,
    trusted_keys: Path | None,
    as_json: bool,
) -> None:
    """Compute the loss of trained weights, and the model's metrics, on the training and the test set.

    \b
    Examples:
      sonew eval sonew-run/bundle --checkpoint sonew-run
      sonew eval ae.bundle --checkpoint sonew-run/step-00001200.safetensors --data mnist --json
      sonew eval ae.bundle --checkpoint weights.npz
    """
    from sonew_compiled.runtime import bind, evaluate_all

    program, trained = options.load_program(bundle, checkpoint, device, trusted_keys, raw=raw)
    dataset = datasets.dataset_of(data, data_dir, trained.settings)
    buffers = trained.upload(program)
    manifest = program.manifest
    on_train, on_test = (
        evaluate_all(program, buffers, bind(arrays, manifest.batch, manifest.classes))
        for arrays in (dataset.train, dataset.test)
    )
    if as_json:
        result = {"steps": trained.step, "bundle": bundle, "checkpoint": trained.path, "data": dataset.name}
        print_json(figures(on_train, on_test) | result)
    after = "" if trained.step is None else f" after {counted(trained.step, 'step')}"
    worth = in_words(on_train, on_test, manifest.unit)
    show_result(f"{worth} on {dataset.name}{after}; {trained.path}", as_json=as_json)


@click.command("reconstruct")
@options.bundle_argument
@options.checkpoint_option
@options.raw_option
@datasets.data_options
@options.device_option
@options.trusted_keys_option
@click.option("-o", "--output", type=options.PATH, default=Path("reconstruction.png"), show_default=True, help="A PNG.")
@click.option("--count", type=Whole(1, 1000), default=20, show_default=True, help="Number of images.")
@output_options
def reconstruct_command(
    bundle: Path,
    checkpoint: Path | None,
    raw: bool,
    data: str | None,
    data_dir: Path | None,
    device: str | None,
    trusted_keys: Path | None,
    output: Path,
    count: int,
    as_json: bool,
) -> None:
    """Draw test images over the model's reconstructions of them.

    \b
    Examples:
      sonew reconstruct sonew-run/bundle --checkpoint sonew-run
      sonew reconstruct ae.bundle --checkpoint sonew-run -o digits.png --count 40
    """
    import numpy as np

    from sonew_compiled.errors import UsageError, counted
    from sonew_compiled.runtime import bind, predict, reconstruction_grid

    if output.suffix != ".png":
        raise UsageError(f"cannot draw {output}; give a name that ends in .png")
    program, trained = options.load_program(bundle, checkpoint, device, trusted_keys, raw=raw)
    buffers = trained.upload(program)
    examples = datasets.dataset_of(data, data_dir, trained.settings).test
    bound = bind(examples, program.manifest.batch, program.manifest.classes)
    inputs: list[Any] = []
    outputs: list[Any] = []
    field = next((spec.name for spec in program.manifest.batch if spec.name == "image"), program.manifest.batch[0].name)
    for batch, valid in bound.evaluation_batches():
        made = predict(program, buffers, batch)
        if isinstance(made, dict):
            raise UsageError(f"predict gives {', '.join(made)}; reconstruct draws a single array: let predict give one")
        inputs.append(np.asarray(batch[field], np.float32)[:valid])
        outputs.append(np.asarray(made, np.float32)[:valid])
        if sum(map(len, inputs)) >= count:
            break
    images = np.concatenate(inputs)[:count]
    after = "" if trained.step is None else f", after {counted(trained.step, 'step')}"
    title = f"{program.manifest.model[:60]}: examples of the test split over their reconstructions{after}"
    reconstruction_grid(images, np.concatenate(outputs)[:count], output, title=title)
    if as_json:
        print_json({"output": output, "images": len(images)})
    note(f"wrote {output}")
