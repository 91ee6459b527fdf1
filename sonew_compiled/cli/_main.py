"""The group of commands, and the handling of their errors."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
import tempfile
import time
import traceback
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from sonew_compiled.cli import _options as options
from sonew_compiled.cli._bench import bench_command
from sonew_compiled.cli._compile import compile_command
from sonew_compiled.cli._config import file_of_values, name_variables, use_config
from sonew_compiled.cli._evaluate import eval_command, reconstruct_command
from sonew_compiled.cli._export import export_command
from sonew_compiled.cli._inspect import inspect_command
from sonew_compiled.cli._plot import plot_command
from sonew_compiled.cli._predict import predict_command
from sonew_compiled.cli._run import run_command
from sonew_compiled.cli._say import complain
from sonew_compiled.cli._sections import WIDTH, keep_names_whole
from sonew_compiled.cli._sign import sign_command
from sonew_compiled.cli._stop import signals_unwind
from sonew_compiled.cli._targets import targets_command
from sonew_compiled.cli._tune import tune_command
from sonew_compiled.cli.data import data
from sonew_compiled.errors import SonewError, on_one_line
from sonew_compiled.install import extra_of, install_command
from sonew_compiled.mpi_environment import rank_started, workers_started

# The packages whose versions decide what a bundle computes, if they are installed.
_STANDS_ON = ("iree-base-runtime", "numpy", "iree-base-compiler", "jax", "jaxlib", "optax", "libtpu", "mpi4py")

# Seconds in which worker 0, which has the same command line as the others, says what is wrong with it.
_FIRST_WORKER = 5.0


# The characters of an unforeseen error that are shown.
_LONGEST_FAULT = 200


class _Group(click.Group):
    """Lists the commands in the order in which a user needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Calls the command; click would print an empty line for Ctrl-C even where no terminal shows `^C`."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                complain("")
            raise click.Abort from None


def _show_version(context: click.Context, option: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from sonew_compiled.runtime.versions import runtime_weakness

    click.echo(f"sonew, version {importlib.metadata.version('sonew-compiled')}")
    click.echo(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in _STANDS_ON:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            click.echo(f"{package} {importlib.metadata.version(package)}")
    if weakness := runtime_weakness():
        click.echo(weakness)
    context.exit()


# Its commands have the width, too.
@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the versions of sonew and of what it stands on, and exit.",
)
@click.option(
    "--config",
    type=options.PATH,
    expose_value=False,
    is_eager=True,
    callback=use_config,
    help="TOML file with values for options, in a table for each command: [run] epochs = 60.",
)
def sonew() -> None:
    """Train with Sparsified Online Newton, compiled ahead of time.

    \b
    Examples:
      sonew run                                  compile, then train on the embedded digits
      sonew compile -o ae.bundle --target cpu    make a bundle
      sonew run ae.bundle --data mnist           train from it, on a machine without JAX
      sonew inspect ae.bundle                    show its contents

    Options come from the command line, else from variables such as SONEW_RUN_EPOCHS, else from --config.

    Shell completion: eval "$(_SONEW_COMPLETE=bash_source sonew)", likewise zsh_source and fish_source.
    """


for command in (
    run_command,
    compile_command,
    eval_command,
    predict_command,
    reconstruct_command,
    export_command,
    plot_command,
    inspect_command,
    sign_command,
    targets_command,
    bench_command,
    tune_command,
    data,
):
    sonew.add_command(command)
name_variables(sonew)
keep_names_whole(sonew)


def main() -> NoReturn:
    """The console script; it exits with 0 for success, 1 for a failure, 2 for a wrong command line, 130 if stopped."""
    _open_missing_streams()
    try:
        with signals_unwind():
            sonew.main(prog_name="sonew", standalone_mode=False)
    except click.ClickException as error:
        _leave_it_to_the_first_worker()
        _show(error)
        sys.exit(error.exit_code)
    except SonewError as error:
        _leave_it_to_the_first_worker()
        complain(f"sonew: {on_one_line(str(error))}")
        _end(error.exit_code)
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if extra is None:
            _end_by_fault(error)
        complain(f"sonew: this needs {error.name}, which is not installed: {install_command(extra)}")
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        complain("sonew: stopped")
        _end(130)
    except BrokenPipeError:
        from sonew_compiled.runtime.reporter import silence

        # The reader of the output has closed it, and stderr may be the same pipe.
        silence(sys.stdout)
        silence(sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            from sonew_compiled.runtime.reporter import silence

            silence(sys.stdout)
        what = "the output" if error.filename is None else error.filename
        reason = error.strerror or error
        complain(
            f"sonew: cannot read or write {on_one_line(str(what))} ({reason}); check its permissions and the free space"
        )
        sys.exit(1)
    except Exception as error:
        _end_by_fault(error)
    sys.exit(0)


def _leave_it_to_the_first_worker() -> None:
    """Waits, in all workers but the first, so that an error from before the workers meet is reported only once.

    The first worker that ends takes the others with it. A worker that is still alive after that has an error of its
    own.
    """
    if workers_started() > 1 and rank_started() > 0:
        time.sleep(_FIRST_WORKER)


def _end(code: int) -> NoReturn:
    from sonew_compiled.background import end_process

    end_process(code)


def _open_missing_streams() -> None:
    """Opens the null device for a stream that a daemon or `2>&-` left closed, where Python has None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123  (open to the end)


def _end_by_fault(error: Exception) -> NoReturn:
    """Ends with one line on an unforeseen error; the traceback goes to a file."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    what = f"{type(error).__name__}: {on_one_line(lines[0][:_LONGEST_FAULT])}" if lines else type(error).__name__
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="sonew-fault-", suffix=".log", delete=False, encoding="utf-8", errors="replace"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
        where = f"please report it with {file.name}"
    except OSError:
        where = "please report it with the command line"
    complain(f"sonew: unexpected {what}; {where}")
    sys.exit(1)


def _show(error: click.ClickException) -> None:
    """Writes click's message as one line, without the usage that click writes above it."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        error.show()
        return
    message = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "sonew"
    end = " See" if message.endswith("?") else "; see"
    complain(f"{command}: {on_one_line(message.rstrip('.'))}{_source_in_words(error)}{end} `{command} --help`")


def _source_in_words(error: click.ClickException) -> str:
    """The variable or the file that a wrong value comes from, in brackets."""
    if not isinstance(error, click.BadParameter) or error.ctx is None or error.param is None:
        return ""
    source = error.ctx.get_parameter_source(str(error.param.name))
    if source is ParameterSource.ENVIRONMENT:
        return f" (from {error.param.envvar})"
    return f" (from {on_one_line(file_of_values(error.ctx))})" if source is ParameterSource.DEFAULT_MAP else ""
