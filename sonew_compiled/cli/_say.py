"""What a command says, and where: results on stdout, all else on stderr; and how much of it, by -v and -q."""

from __future__ import annotations

import contextlib
import enum
import functools
import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from sonew_compiled.errors import UsageError, on_one_line

if TYPE_CHECKING:
    from rich.console import Console

Command = Callable[..., Any]

# The logger whose lines --verbose shows: those of the passes, the compilers and the runtime are below it.
_LOG = logging.getLogger("sonew_compiled")
_KEY = "sonew_compiled.loudness"


class Loudness(enum.Enum):
    """How much a command says on stderr, besides errors."""

    QUIET = "nothing"
    NORMAL = "progress and notes"
    VERBOSE = "what is done, too"


class _Lines(logging.Handler):
    """Writes each record of a log as a line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage())


def _set_loudness(context: click.Context, option: click.Parameter, is_given: bool) -> None:
    if not is_given or context.resilient_parsing:
        return
    asked = Loudness.QUIET if option.name == "quiet" else Loudness.VERBOSE
    if context.meta.setdefault(_KEY, asked) is not asked:
        raise UsageError("--verbose says more and --quiet says less; leave one of them out")


@contextlib.contextmanager
def _log_shown() -> Iterator[None]:
    """Shows the lines of the log until the command ends, and then how long it took."""
    handler, before, started = _Lines(), _LOG.level, time.perf_counter()
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.DEBUG)
    try:
        yield
        _LOG.debug("%s took %.1f s", click.get_current_context().command_path, time.perf_counter() - started)
    finally:
        _LOG.removeHandler(handler)
        _LOG.setLevel(before)


def output_options(function: Command) -> Command:
    """`--json`, which a command takes as `as_json`, and `--verbose` and `--quiet`, which act by themselves."""

    @functools.wraps(function)
    def command(*arguments: Any, **options: Any) -> Any:
        with _log_shown() if is_verbose() else contextlib.nullcontext():
            return function(*arguments, **options)

    decorated: Command = command
    for short, name, about in (
        ("-q", "quiet", "Print only results and errors."),
        ("-v", "verbose", "Print what is done as well: passes, compilers, files, and how long each took."),
    ):
        decorated = click.option(
            short, f"--{name}", name, is_flag=True, expose_value=False, callback=_set_loudness, help=about
        )(decorated)
    about_json = "Print one JSON value on stdout, the rest on stderr."
    return click.option("--json", "as_json", is_flag=True, help=about_json)(decorated)


def is_quiet() -> bool:
    """Whether the command that runs is to print only results and errors."""
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(_KEY) is Loudness.QUIET


def is_verbose() -> bool:
    """Whether the command that runs is to print what is done as well."""
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(_KEY) is Loudness.VERBOSE


def show_result(line: str, *, as_json: bool) -> None:
    """Prints a result in words: on stdout, or on stderr beside one that is printed as JSON."""
    if as_json:
        note(line)
    else:
        click.echo(on_one_line(line))


def print_json(value: Any) -> None:
    """Prints one JSON value on stdout. NaN and infinities become null, since JSON has no such numbers."""
    if isinstance(value, dict):
        value = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in value.items()}
    click.echo(json.dumps(value, indent=1, default=str, allow_nan=False))


def note(line: str) -> None:
    """Prints a line of progress or a note on stderr, unless --quiet is given."""
    if not is_quiet():
        complain(line)


def complain(line: str) -> None:
    """Prints a line on stderr in any case, such as an error; a closed stderr is no error."""
    try:
        click.echo(on_one_line(line), err=True)
    except OSError:
        from sonew_compiled.runtime.reporter import silence

        silence(sys.stderr)


def console() -> Console:
    """Stdout for tables: as wide as the terminal, and of unlimited width elsewhere, so that no line is broken."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False, markup=False, soft_wrap=True)
    return Console(file=cast(TextIO, _Trimmed(sys.stdout)), highlight=False, markup=False, soft_wrap=True, width=10_000)


class _Trimmed:
    """A stream whose lines lose the spaces at their ends, with which rich fills the last column of a table."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes whole lines."""
        return self._stream.write(re.sub(r" +$", "", text, flags=re.MULTILINE))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
