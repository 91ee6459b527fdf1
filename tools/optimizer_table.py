"""The table of docs/reference/optimizers.md, from the optimizers' records."""

from __future__ import annotations

from sonew_compiled.presets import RECORDS, OptimizerRecord


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
