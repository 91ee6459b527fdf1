"""Values for options from elsewhere than the command line: `--config`, a TOML file, and `SONEW_*` variables."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from sonew_compiled.errors import UsageError

_FILE = "sonew_compiled.config"


def use_config(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Makes the file's values the defaults of the commands; options and `SONEW_*` variables replace them.

    Raises:
      UsageError: the file cannot be read, or names a command or an option that does not exist.
    """
    if path is None or context.resilient_parsing:
        return path
    try:
        described = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read ({error.strerror}); give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not TOML: {error}") from None
    assert isinstance(context.command, click.Group)
    context.meta[_FILE] = str(path)
    context.default_map = _values(described, context.command, str(path), "")
    return path


def file_of_values(context: click.Context) -> str:
    """The path given to `--config`; empty if none was."""
    return str(context.meta.get(_FILE, ""))


def name_in_file(option: click.Option) -> str:
    """The name of an option in the file: as it is typed, without dashes."""
    return _words(option)[0]


def name_variables(group: click.Group, prefix: str = "SONEW") -> None:
    """Gives each option of the commands a variable: `SONEW_RUN_DATA_DIR` for `--data-dir` of `run`."""
    for name, command in group.commands.items():
        begin = f"{prefix}_{name.upper()}"
        if isinstance(command, click.Group):
            name_variables(command, begin)
            if not command.invoke_without_command:
                continue
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.envvar is None:
                parameter.envvar = f"{begin}_{name_in_file(parameter).replace('-', '_').upper()}"


def _values(described: dict[str, Any], group: click.Group, path: str, place: str) -> dict[str, Any]:
    """The values by the names that click gives to commands and parameters."""
    values: dict[str, Any] = {}
    for name, table in described.items():
        command = group.commands.get(name)
        if command is None or not isinstance(table, dict):
            raise UsageError(f"--config {path} has {place}{name}; give a table for {', '.join(group.commands)}")
        below: dict[str, Any] = {}
        if isinstance(command, click.Group):
            is_own = command.invoke_without_command
            tables = {key: each for key, each in table.items() if not is_own or key in command.commands}
            below = _values(tables, command, path, f"{place}{name}.")
            table = {key: each for key, each in table.items() if key not in tables}
        names = _names(command)
        if unknown := [key for key in table if key not in names]:
            raise UsageError(f"--config {path} has {unknown[0]} in [{place}{name}]; give {', '.join(names)}")
        # click would take a text for an option that is repeatable as one value for each letter.
        several = {each.name for each in command.params if each.multiple}
        given = {names[key]: value for key, value in table.items()}
        values[name] = below | {
            key: [value] if key in several and isinstance(value, str) else value for key, value in given.items()
        }
    return values


def _names(command: click.Command) -> dict[str, str]:
    """The names of a command's options as they are typed, without dashes, with those of its parameters."""
    options = [each for each in command.params if isinstance(each, click.Option)]
    return {word: str(option.name) for option in options for word in _words(option)}


def _words(option: click.Option) -> list[str]:
    """The long names of an option, without dashes."""
    return [word.removeprefix("--") for word in option.opts if word.startswith("--")]
