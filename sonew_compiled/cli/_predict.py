"""`sonew predict`: a model's predictions for the examples of a data set, as a `.npz` file."""

from __future__ import annotations

from pathlib import Path

import click

from sonew_compiled.cli import _dataset_options as datasets
from sonew_compiled.cli import _options as options
from sonew_compiled.cli._say import note, output_options, print_json
from sonew_compiled.errors import UsageError

_ALL = "all"


@click.command("predict", short_help="Write a model's predictions.")
@options.bundle_argument
@options.checkpoint_option
@options.raw_option
@datasets.data_options
@options.device_option
@options.trusted_keys_option
@click.option(
    "-o", "--output", type=options.PATH, default=Path("predictions.npz"), show_default=True, help="A .npz file."
)
@click.option(
    "--split",
    type=click.Choice([_ALL, "train", "test"]),
    default=_ALL,
    show_default=True,
    help="The examples: of one split, or all in the order of the file, the training examples first.",
)
@output_options
def predict_command(
    bundle: Path,
    checkpoint: Path | None,
    raw: bool,
    data: str | None,
    data_dir: Path | None,
    device: str | None,
    trusted_keys: Path | None,
    output: Path,
    split: str,
    as_json: bool,
) -> None:
    """Write the predictions of a trained model for all examples of a data set.

    The file has the array `prediction`, or one array for each part of a prediction that is a tree. The data needs only
    the fields that the model predicts from.

    \b
    Examples:
      sonew predict sonew-run/bundle --checkpoint sonew-run
      sonew predict ae.bundle --checkpoint weights.safetensors --data new.npz -o out.npz
      sonew predict infer.bundle --data mnist --split test
    """
    import numpy as np

    from sonew_compiled.runtime import bind, predict, save_parameters
    from sonew_compiled.runtime.evaluate import check_predicts
    from sonew_compiled.runtime.weights import NPZ

    if output.suffix != NPZ:
        raise UsageError(f"cannot write predictions to {output}; give a name that ends in {NPZ}")
    program, trained = options.load_program(bundle, checkpoint, device, trusted_keys, raw=raw)
    check_predicts(program, is_one_batch=split != _ALL)
    dataset = datasets.dataset_of(data, data_dir, trained.settings, least=1, tell=split != _ALL)
    manifest = program.manifest
    buffers = trained.upload(program)
    splits = [dataset.train, dataset.test] if split == _ALL else [getattr(dataset, split)]
    made = [predict(program, buffers, bind(each, manifest.fields("predict"), manifest.classes)) for each in splits]
    parts = [each if isinstance(each, dict) else {"prediction": each} for each in made]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    save_parameters(output, arrays)
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    if as_json:
        print_json({"output": output, "data": dataset.name, "split": split, "arrays": shapes})
    listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    note(f"wrote {output}: {listed}, predicted with {trained.path}")
