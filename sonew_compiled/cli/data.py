"""`sonew data`: fetches, checks and packs data sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sonew_compiled.cli._say import is_quiet, note, output_options, print_json, show_result
from sonew_compiled.errors import SonewError

if TYPE_CHECKING:
    from sonew_compiled.runtime.data.fetch import Progress
    from sonew_compiled.runtime.data.mnist import FileRow

_DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.group()
def data() -> None:
    """Fetch, check and pack data sets.

    The default, mnist-10k, comes with the package and need not be fetched.

    \b
    Examples:
      sonew data fetch
      sonew data verify
      sonew data pack my.npz my-data
    """


@data.command()
@click.option(
    "--data-dir", type=_DIRECTORY, help="Folder for the files.  [default: $SONEW_DATA, else the user's cache]"
)
@output_options
def fetch(data_dir: Path | None, as_json: bool) -> None:
    """Fetch the full MNIST (about 12 MB) from public mirrors.

    Valid files are kept, and an interrupted transfer is continued.

    \b
    Examples:
      sonew data fetch
      sonew data fetch --data-dir ~/mnist
      sonew run ae.bundle --data mnist --data-dir ~/mnist
    """
    # Imported here so that `sonew --help` need not wait for NumPy.
    from sonew_compiled.runtime.data import fetch, mnist

    directory = data_dir or mnist.default_directory()
    with _progress() as progress:
        rows = fetch.fetch_mnist(directory, mirrors=fetch.MIRRORS, progress=progress)
    _print_files(mnist.FULL, directory, rows, as_json)


@data.command()
@click.option(
    "--data",
    "name",
    type=click.Choice(["mnist-10k", "mnist"]),
    default="mnist",
    show_default=True,
    help="Data set to check.",
)
@click.option(
    "--data-dir", type=_DIRECTORY, help="Folder to look for mnist in before $SONEW_DATA and the user's cache."
)
@output_options
def verify(name: str, data_dir: Path | None, as_json: bool) -> None:
    """Check the files of a data set against their SHA-256.

    Exits with 1 if a file is missing or differs.

    \b
    Examples:
      sonew data verify
      sonew data verify --data mnist-10k
      sonew data verify --data-dir ~/mnist --json
    """
    from sonew_compiled.runtime.data import mnist
    from sonew_compiled.runtime.shown import argument

    if name == mnist.EMBEDDED:
        directory = mnist.EMBEDDED_DIRECTORY
        rows = mnist.verify_mnist(directory, files=mnist.EMBEDDED_FILES)
        remedy = "reinstall sonew-compiled"
    else:
        directory = mnist.find(data_dir, complete=False)
        rows = mnist.verify_mnist(directory)
        remedy = f"repair it with `sonew data fetch --data-dir {argument(directory)}`"
    _print_files(name, directory, rows, as_json)
    bad = [f"{row.file} is {row.status}" for row in rows if row.status is not mnist.FileState.VALID]
    if bad:
        raise SonewError(f"the data set `{name}` in {directory} is not usable ({', '.join(bad)}); {remedy}")


@data.command(short_help="Write a data set as a folder of .npy files.")
@click.argument("source")
@click.argument("folder", type=_DIRECTORY)
@click.option("--data-dir", type=_DIRECTORY, help="Where the files of `mnist` are.")
@output_options
def pack(source: str, folder: Path, data_dir: Path | None, as_json: bool) -> None:
    """Write what --data reads as a folder of .npy files, which runs map and do not read into memory.

    \b
    Examples:
      sonew data pack my.npz my-data
      sonew run ae.bundle --data my-data
    """
    from sonew_compiled.runtime import load_dataset
    from sonew_compiled.runtime.data.mapped import write_folder
    from sonew_compiled.runtime.shown import argument

    dataset = load_dataset(source, data_dir=data_dir)
    for line in dataset.notes:
        note(line)
    size = write_folder(folder, dataset)
    if as_json:
        print_json({"output": folder, "bytes": size, "fields": list(dataset.train)})
    fields = ", ".join(dataset.train)
    note(f"wrote {folder} ({size / 1e6:.1f} MB): {fields}; use it as --data {argument(folder)}")


def _print_files(name: str, directory: Path, rows: list[FileRow], as_json: bool) -> None:
    if as_json:
        usable = all(row.status in ("valid", "fetched") for row in rows)
        files = [row._asdict() for row in rows]
        print_json({"data": name, "directory": str(directory), "usable": usable, "files": files})
        return
    for row in rows:
        show_result(f"{row.status:<8} {row.file}: {row.detail}", as_json=False)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar for each file on standard error; nothing if that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=console, disable=not console.is_terminal or is_quiet()) as bars:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield show
