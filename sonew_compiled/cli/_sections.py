"""Help in sections: what a command's many options are about."""

from __future__ import annotations

from collections.abc import Iterable

import click

from sonew_compiled.presets import SETTINGS
from sonew_compiled.step_settings import NUMBERS, PATTERNS
from sonew_compiled.train_settings import train_options

# `bench` takes several of some options, under the names of several.
_PRECISIONS = ("precision", "precisions")
_SECTIONS = {
    "Data": ("data", "data_dir"),
    "Training": (*(option.name for option in train_options()), "seeds", "steps", "trackers"),
    "Compilation": ("model", "batch_size", "micro_batch", "exchange", *_PRECISIONS, "targets", "init_on", "params"),
    "Optimizer": ("optimizer", "optimizers", "optimizer_preset", *SETTINGS),
    "Step": (*(setting.name for setting in NUMBERS), *PATTERNS),
}
WIDTH = 100
"""The characters of the longest line of a help."""


# Looks like a hyphen, and is no place to break a line.
_UNBROKEN = "\N{NON-BREAKING HYPHEN}"


class _Formatter(click.HelpFormatter):
    """Breaks lines between words only, so that names such as schedule-free-adamw can be copied."""

    def write(self, string: str) -> None:
        super().write(string.replace(_UNBROKEN, "-"))

    def write_text(self, text: str) -> None:
        super().write_text(text.replace("-", _UNBROKEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(name, text.replace("-", _UNBROKEN)) for name, text in rows], col_max, col_spacing)


class _Context(click.Context):
    formatter_class = _Formatter


def keep_names_whole(command: click.Command) -> None:
    """Lets the help of a command, and of those below it, break no name at a hyphen."""
    command.context_class = _Context
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        keep_names_whole(inner)


class SectionedCommand(click.Command):
    """A command whose help lists its options in sections, those of none first."""

    def sections(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        """The options and their help by section, without the empty ones."""
        rows: dict[str, list[tuple[str, str]]] = {"Options": [], **{name: [] for name in _SECTIONS}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                found = (name for name, names in _SECTIONS.items() if parameter.name in names)
                rows[next(found, "Options")].append(record)
        return {name: records for name, records in rows.items() if records}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections."""
        for name, records in self.sections(ctx).items():
            with formatter.section(name):
                formatter.write_dl(records)


class SectionedGroup(SectionedCommand, click.Group):
    """A command that has commands of its own too, which its help lists last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections, then the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)
