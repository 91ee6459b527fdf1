"""Help in sections: what a command's many options are about."""

from __future__ import annotations

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
