"""The parts of the documentation that are made from records: tables, and the reference of commands and passes.

A document marks the place of a part, and says there how to see it:

    <!-- generated: optimizers -->
    `python tools/generated.py optimizers` prints this table.
    <!-- end -->

The site has the part in place of these lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import command_page
import kind_targets
import optimizer_table
import paper_table
import pass_tables
import result_tables
import scaling_model
import schemas
import target_table

from sonew_compiled import passes
from sonew_compiled.bench import speed, workers
from sonew_compiled.bench.goals import Goal

ROOT = Path(__file__).parent.parent

_MARKED = re.compile(r"^<!-- generated: ([\w.-]+) -->\n.*?^<!-- end -->$", re.DOTALL | re.MULTILINE)


def _fields(file: str) -> str:
    """The table of the fields of a schema."""
    schema = json.loads(schemas.schemas()[file])
    rows = []
    for name, each in schema["properties"].items():
        needed = "" if name in schema["required"] else "optional"
        rows.append(f"| `{name}` | {_kind(each)} | {needed} | {each.get('description', '')} |")
    return "\n".join(["| field | type | | meaning |", "|---|---|---|---|", *rows])


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    kind = schema.get("type", "anything")
    return str(kind) if isinstance(kind, str) else " or ".join(kind)


def _runtime() -> str:
    """What the runtime exports, for mkdocstrings, in the order of its imports."""
    text = (ROOT / "runtime/__init__.py").read_text(encoding="utf-8")
    names = re.findall(r"^from \S+ import (\w+) as \1$", text, re.MULTILINE)
    # The name `train` alone would document the module.
    paths = (f"{name}.{name}" if (ROOT / "runtime" / f"{name}.py").is_file() else name for name in names)
    return "\n".join(f"::: sonew_compiled.runtime.{path}" for path in paths)


def _goals(goals: Sequence[Goal]) -> str:
    """The keys of a suite's ratios, with their bounds."""
    rows = []
    for goal in goals:
        sign = "≥" if goal.at_least else "≤"
        bounds = ("" if bound is None else f"{sign} {bound:g}{goal.unit}" for bound in (goal.must, goal.aim))
        rows.append(f"| `{goal.key}` | {goal.what} | {' | '.join(bounds)} |")
    return "\n".join(["| key | what | must | aim |", "|---|---|---|---|", *rows])


PARTS: Mapping[str, Callable[[], str]] = {
    "commands": command_page.command_sections,
    "runtime": _runtime,
    "optimizers": optimizer_table.markdown,
    "compiled": lambda: target_table.markdown(target_table.read_rows(ROOT / "docs/results/targets.jsonl")),
    "kinds": lambda: kind_targets.markdown(kind_targets.read_rows(ROOT / "docs/results/kinds-targets.jsonl")),
    "scaling": lambda: scaling_model.table(scaling_model.measured()),
    **{room: partial(pass_tables.pass_table, room) for room in passes.ROOMS},
    "policies": pass_tables.policy_table,
    "targets": pass_tables.target_table,
    "passes": pass_tables.reference,
    "speed": partial(_goals, speed.GOALS),
    "workers": partial(_goals, workers.GOALS),
    "paper": paper_table.markdown,
    "long-search": result_tables.long_search,
    "studies": partial(result_tables.studies, "tuned-20"),
    "studies-bf16": partial(result_tables.studies, "tuned-20-bf16"),
    "small-studies": result_tables.small_studies,
    "precisions": result_tables.policies,
    "speed-results": result_tables.speed,
    "workers-results": result_tables.shared_steps,
    "schemas": lambda: "The schemas: " + ", ".join(f"[{name}](schemas/{name})" for name in schemas.FILES) + ".",
    **{file: partial(_fields, file) for file in schemas.FILES},
}
"""What makes each part, by its name."""


def filled(document: str) -> str:
    """The document with its parts in their places."""
    return _MARKED.sub(lambda match: PARTS[match[1]](), document)


@click.command(help="Print a part of the documentation that is made from records.")
@click.argument("part", type=click.Choice(list(PARTS)))
def main(part: str) -> None:
    """The command line."""
    click.echo(PARTS[part]())


if __name__ == "__main__":
    main()
