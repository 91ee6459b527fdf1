"""`--dry-run`: what a command would do, with the source of each of its settings, and nothing done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

from sonew_compiled.cli import _options as options
from sonew_compiled.cli._config import file_of_values, name_in_file
from sonew_compiled.cli._say import console, note, print_json
from sonew_compiled.presets import DEFAULT_OPTIMIZER, PRESETS, record_of

DEFAULT = "default"
# The options that say how a command prints, and not what it does.
_ABOUT_OUTPUT = ("as_json", "dry_run", "verbose", "quiet")

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print the settings, with the source of each, and the files to write; do nothing."
)


@dataclass(frozen=True)
class Chosen:
    """A value of a setting.

    Attributes:
      value: the value; None if there is none.
      source: where it comes from, in a few words.
    """

    value: Any
    source: str


def source_of(name: str) -> str:
    """The source of the value that the user has given to an option of this command; empty if there is none."""
    context = click.get_current_context()
    source = context.get_parameter_source(name)
    if source is ParameterSource.COMMANDLINE:
        return "command line"
    if source is ParameterSource.ENVIRONMENT:
        (option,) = (each for each in context.command.params if each.name == name)
        return str(option.envvar)
    return file_of_values(context) if source is ParameterSource.DEFAULT_MAP else ""


def chosen(name: str, value: Any, otherwise: str = DEFAULT) -> Chosen:
    """A setting's value in use, which comes from `otherwise` unless the user has given it."""
    return Chosen(value, source_of(name) or otherwise)


def chosen_in_compilation(what: Mapping[str, Any], because: str = "") -> dict[str, Chosen]:
    """The settings that follow from the options of the compilation.

    Args:
      what: the options, with the preset that is used.
      because: the source of the preset if it was chosen for the user.
    """
    given = dict(what)
    optimizer = options.optimizer_of(given)
    options.step_of(given)  # which checks them
    preset = given["optimizer_preset"] or PRESETS[0]
    has_two = bool(record_of(optimizer.name).long)
    of_preset = f"preset {preset} of {optimizer.name}" if has_two else f"preset of {optimizer.name}"
    rate = optimizer.learning_rate if given["learning_rate"] is None else given["learning_rate"]
    return {
        "model": chosen("model", given["model"] or options.MODELS[0]),
        "optimizer": chosen("optimizer", given["optimizer"] or DEFAULT_OPTIMIZER),
        "optimizer_preset": chosen("optimizer_preset", preset if has_two else None, because or DEFAULT),
        **{name: chosen(name, value, of_preset) for name, value in optimizer.values.items()},
        "learning_rate": chosen("learning_rate", rate, of_preset),
        "schedule": chosen("schedule", options.schedule_of(given), of_preset if preset == "long" else DEFAULT),
        "batch_size": chosen("batch_size", given["batch_size"] or options.DEFAULT_BATCH_SIZE),
        "precision": chosen("precision", given["precision"] or "f32"),
        "targets": chosen("targets", given["targets"] or ("cpu",)),
    }


def compiled_files(names: Sequence[str], *, has_params: bool) -> list[str]:
    """The files of a bundle for targets of these names.

    Raises:
      UsageError: there is no such target.
      SonewError: its compiler is not installed.
    """
    from sonew_compiled.contract import MANIFEST_FILE, PARAMETERS_FILE, STABLEHLO_FILE
    from sonew_compiled.errors import SonewError
    from sonew_compiled.lowering.targets import resolve_targets, why_not_compiled

    targets = resolve_targets(names)
    for target in targets:
        if reason := why_not_compiled(target):
            raise SonewError(f"this machine lacks the compiler for target {target.name}: {reason}")
    own = [PARAMETERS_FILE] if has_params else []
    return [MANIFEST_FILE, STABLEHLO_FILE, *own, *(target.file for target in targets)]


def show_plan(found: Mapping[str, Chosen], *, writes: Sequence[object], as_json: bool, **facts: Any) -> None:
    """Prints what the command of this context would do.

    Args:
      found: the settings that come from elsewhere than the option alone, by the names of the command's parameters.
      writes: the files that would be written.
      as_json: whether to print it as JSON.
      facts: what else follows from the settings, such as the number of steps.
    """
    from rich.table import Table

    context = click.get_current_context()
    settings: dict[str, Chosen] = {}
    for option in context.command.params:
        name = str(option.name)
        if not isinstance(option, click.Option) or name in _ABOUT_OUTPUT:
            continue
        each = found.get(name) or chosen(name, context.params.get(name))
        if each.value not in (None, ()) and each.value is not False:
            settings[name_in_file(option)] = each
    files = [str(path) for path in writes]
    if as_json:
        described = {name: {"value": each.value, "source": each.source} for name, each in settings.items()}
        print_json({"command": context.command_path, "settings": described, **facts, "files": files})
    else:
        table = Table("setting", "value", "from", box=None, header_style="bold", pad_edge=False)
        for name, each in settings.items():
            value = ", ".join(map(_shown, each.value)) if isinstance(each.value, tuple) else _shown(each.value)
            table.add_row(name, value, each.source)
        about = [f"{name}: {_shown(value)}" for name, value in facts.items() if not isinstance(value, list)]
        lists = [
            f"{name}:\n  " + "\n  ".join(map(str, value)) for name, value in facts.items() if isinstance(value, list)
        ]
        console().print(table, "", *about, *lists, "files to write:\n  " + "\n  ".join(files), sep="\n")
    note("dry run: nothing was computed or written")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
