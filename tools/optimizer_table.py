"""Writes the table of docs/reference/optimizers.md from the optimizers' records.

python tools/optimizer_table.py --write docs/reference/optimizers.md
"""

from __future__ import annotations

from pathlib import Path

import click

from sonew_compiled.presets import RECORDS, OptimizerRecord

BEGIN, END = "<!-- table of tools/optimizer_table.py -->", "<!-- end of the table -->"


def markdown() -> str:
    """The table, with a line for each optimizer and its numeric settings."""
    lines = ["| name | paper | state, numbers a parameter | learning rate | settings | limits |", "|---" * 6 + "|"]
    return "\n".join([*lines, *map(_line, RECORDS.values())])


def _line(record: OptimizerRecord) -> str:
    numbers = {each.flag[2:]: each.default for each in record.settings if isinstance(each.default, int | float)}
    settings = " ".join(f"`{name}` {default:g}" for name, default in numbers.items())
    needs = {
        "dense layers": record.needs_layers,
        "no 16-bit state": record.needs_float32_state,
        record.limits: bool(record.limits),
    }
    limits = "; ".join(what for what, holds in needs.items() if holds)
    rates = [f"{record.learning_rate:g}", *(f"{rate:g} in `{name}`" for name, rate in record.rates.items())]
    cells = (f"`{record.name}`", record.paper, record.state, ", ".join(rates), settings, limits)
    return "| " + " | ".join(cells) + " |"


def insert(document: str, table: str) -> str:
    """The document with the table between its markers."""
    head, rest = document.split(BEGIN)
    return f"{head}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}"


@click.command()
@click.option("--write", type=click.Path(path_type=Path, exists=True), required=True, help="Document to put it into.")
def main(write: Path) -> None:
    """Put the table into a document, between its markers."""
    write.write_text(insert(write.read_text(encoding="utf-8"), markdown()), encoding="utf-8")


if __name__ == "__main__":
    main()
