"""The options that name a data set, and the data set that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from sonew_compiled.cli._options import PATH, Command
from sonew_compiled.cli._say import note
from sonew_compiled.errors import UsageError, counted

if TYPE_CHECKING:
    from sonew_compiled.runtime import Dataset

DEFAULT_DATA = "mnist-10k"
# The data set to which `--data-dir` belongs.
_FULL = "mnist"


def complete_data(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The data sets and files, for a shell."""
    sets = [CompletionItem(name) for name in (DEFAULT_DATA, _FULL) if name.startswith(incomplete)]
    return [*sets, CompletionItem(incomplete, type="file")]


def data_options(command: Command) -> Command:
    """`--data` and `--data-dir`."""
    command = click.option("--data-dir", type=PATH, help="Folder with the files of `mnist`.")(command)
    return click.option(
        "--data",
        shell_complete=complete_data,
        help="mnist-10k (embedded), mnist (the full set), a .npy, .npz or IDX file of images, "
        "or a folder of .npy files, which are mapped.  "
        f"[default: the checkpoint's data set, else {DEFAULT_DATA}]",
    )(command)


def dataset_of(
    data: str | None, data_dir: Path | None, checkpoint: Mapping[str, str], *, least: int = 2, tell: bool = True
) -> Dataset:
    """The given data set, else that of the checkpoint's metadata, else the embedded one.

    Args:
      data: the option.
      data_dir: the option.
      checkpoint: the metadata.
      least: as `load_dataset` takes it.
      tell: whether to print the data set's notes, such as that examples were held out.
    """
    from sonew_compiled.runtime import load_dataset

    remembered = checkpoint.get("data")
    check_data_dir(data or remembered or DEFAULT_DATA, data_dir)
    try:
        dataset = load_dataset(data or remembered or DEFAULT_DATA, data_dir=data_dir, least=least)
    except UsageError as error:
        if data or not remembered:
            raise
        raise UsageError(f"the checkpoint's data are not here, so give --data: {error}") from None
    for line in dataset.notes if tell else ():
        note(line)
    return dataset


def check_data_dir(data: str, data_dir: Path | None) -> None:
    """Refuses a folder of `mnist` that is given with another data set; in a variable or a file it may stand for later.

    Raises:
      UsageError: the command line has `--data-dir`, and the data are no `mnist`.
    """
    if data != _FULL and click.get_current_context().get_parameter_source("data_dir") is ParameterSource.COMMANDLINE:
        raise UsageError(
            f"--data-dir {data_dir} has the files of mnist, and the data are {data}: give --data mnist too"
        )


def check_batch_size(batch_size: int, dataset: Dataset) -> int:
    """The number of examples to train on, of which there are enough for a batch.

    Raises:
      UsageError: there are fewer.
    """
    examples = len(next(iter(dataset.train.values())))
    if batch_size > examples:
        raise UsageError(
            f"--batch-size is {batch_size}; {dataset.name} has {counted(examples, 'example')} to train on: give no more"
        )
    return examples
