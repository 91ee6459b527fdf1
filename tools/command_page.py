"""The reference of the command line, made from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from sonew_compiled.cli import _main
from sonew_compiled.cli._sections import SectionedCommand


def command_sections() -> str:
    """Markdown: a section for each command, with its examples and a table of its options."""
    return "\n\n".join(_sections(_main.sonew, _context(_main.sonew, "sonew")))


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {context.command_path}"
    text, examples = _help(command)
    yield from text
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield "\n".join(["```text", usage, *(["", *examples] if examples else []), "```"])
    for section, records in _options(command, context).items():
        rows = [f"| {_names(names)} | {_cell(text)} |" for names, text in records]
        yield "\n".join([f"| {section.lower()} | meaning |", "|---|---|", *rows])
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _sections(inner, _context(inner, name, context))


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, **command.context_settings)


def _options(command: click.Command, context: click.Context) -> dict[str, list[tuple[str, str]]]:
    """The options by section, as `--help` has them."""
    if isinstance(command, SectionedCommand):
        return command.sections(context)
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    return {"Options": [record for each in options if (record := each.get_help_record(context))]}


def _help(command: click.Command) -> tuple[list[str], list[str]]:
    """The paragraphs of a command's help, and the lines of its examples."""
    paragraphs = [part.replace("\b", "").strip() for part in inspect.cleandoc(command.help or "").split("\n\n")]
    examples = [line.strip() for part in paragraphs if part.startswith("Examples:") for line in part.splitlines()[1:]]
    return [_prose(part) for part in paragraphs if not part.startswith("Examples:")], examples


def _prose(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("_", r"\_").strip()


def _names(text: str) -> str:
    """`-o, --output PATH`, with a break allowed before the long list of a choice."""
    names, _, values = text.partition("[")
    choices = values.removesuffix("]").split("|") if values else []
    return f"`{names.strip()}`" + (": " + ", ".join(f"`{each}`" for each in choices) if choices else "")


def _cell(text: str) -> str:
    """The help, and behind it in parentheses what click has in brackets: default, range, variable."""
    words, _, brackets = text.partition("  [")
    limits = [each.strip() for each in re.split(r"\]\s*\[|\]$|; ", brackets) if each.strip()]
    return _prose(words + (f" ({'; '.join(limits)})" if limits else "")).replace("|", r"\|")
